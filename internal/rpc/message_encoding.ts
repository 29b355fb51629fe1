import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { MasterMessage } from "../model/session.ts";
import type { TaskJob } from "../model/task.ts";
import { GrantSchema, SessionResponseSchema } from "./gen/mapreduce/v1/worker_pb.ts";
import { grantToWire, masterMessageToWire } from "./session_conversions.ts";

/** Of each job and kind of task, as it stands in a grant. */
const encodedJobs = new WeakMap<TaskJob, Uint8Array>();

/**
 * As it goes over the wire. Grants of one job differ in little: what they share is encoded once.
 * Two parts of a message, one after the other, are the encoding of the whole.
 */
export function encodeMasterMessage(message: MasterMessage): Uint8Array {
  if (message.kind !== "grant")
    return toBinary(SessionResponseSchema, masterMessageToWire(message));
  const { job, ...own } = grantToWire(message.assignment);
  let shared = encodedJobs.get(job);
  if (shared === undefined) {
    shared = toBinary(GrantSchema, create(GrantSchema, { job } as never));
    encodedJobs.set(job, shared);
  }
  const rest = toBinary(GrantSchema, create(GrantSchema, own as never));
  return new BinaryWriter()
    .tag(SessionResponseSchema.field.grant.number, WireType.LengthDelimited)
    .uint32(shared.length + rest.length)
    .raw(shared)
    .raw(rest)
    .finish();
}
