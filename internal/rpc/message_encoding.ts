import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { JobView } from "../model/job.ts";
import type { MasterMessage } from "../model/session.ts";
import type { TaskJob } from "../model/task.ts";
import { jobToMessage } from "./conversions.ts";
import { JobSchema, type WatchResponse, WatchResponseSchema } from "./gen/mapreduce/v1/job_pb.ts";
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

/** Of each view, with its specification (true) and without. */
const encodedViews = new WeakMap<JobView, Map<boolean, WatchResponse>>();

/**
 * What those who follow a job are told, in the binary form alone: a view that many are told is encoded
 * once. A message is written with the bytes of fields that are not known, as they are: these are such.
 */
export function encodeView(job: JobView, withSpec: boolean): WatchResponse {
  const views = encodedViews.get(job) ?? new Map<boolean, WatchResponse>();
  encodedViews.set(job, views);
  let message = views.get(withSpec);
  if (message === undefined) {
    const bytes = toBinary(JobSchema, jobToMessage(job, withSpec));
    message = create(WatchResponseSchema);
    message.$unknown = [
      {
        no: WatchResponseSchema.field.job.number,
        wireType: WireType.LengthDelimited,
        data: new BinaryWriter().bytes(bytes).finish(),
      },
    ];
    views.set(withSpec, message);
  }
  return message;
}
