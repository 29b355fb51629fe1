import { create } from "@bufbuild/protobuf";
import { MrError } from "../model/errors.ts";
import { parseAttemptId } from "../model/ids.ts";
import { blobNameFault, containerNameFault } from "../model/names.ts";
import type { MasterMessage, WorkerMessage } from "../model/session.ts";
import type {
  Assignment,
  BadRecords,
  KeyBounds,
  Receipt,
  Segments,
  Source,
  TaskJob,
  TaskOutput,
  TaskStats,
} from "../model/task.ts";
import { big, isFailureClass } from "./conversions.ts";
import {
  type BadRecords as BadMessage,
  type KeyBounds as BoundsMessage,
  type Grant,
  type TaskJob as JobMessage,
  type TaskOutput as OutputMessage,
  type Part as PartMessage,
  type Segments as SegmentsMessage,
  type SessionRequest,
  SessionRequestSchema,
  type SessionResponse,
  SessionResponseSchema,
  type Source as SourceMessage,
  type TaskStats as StatsMessage,
} from "./gen/mapreduce/v1/worker_pb.ts";

/**
 * Between the messages of a session's stream and the model's. What comes from
 * the other side is validated here; what is wrong ends the stream.
 */
function refuse(what: string): MrError {
  return new MrError("invalid", `session: ${what}`);
}

export function workerMessageToWire(message: WorkerMessage): SessionRequest {
  const wire = (body: NonNullable<SessionRequest["message"]>) =>
    create(SessionRequestSchema, { message: body } as never);
  const value = workerBody(message);
  return wire({ case: message.kind, value } as never);
}

function workerBody(message: WorkerMessage): object {
  switch (message.kind) {
    case "hello": {
      const { id, ...worker } = message.worker;
      return { workerId: id, ...worker, attempts: message.attempts };
    }
    case "ready":
      return { free: message.free, grantsSeen: message.seen, ahead: message.ahead };
    case "heartbeat":
      return {
        seq: big(message.seq),
        attempts: message.attempts.map((entry) => ({
          ...entry,
          bytesIn: big(entry.bytesIn),
          bytesTotal: big(entry.bytesTotal),
          counters: countersToWire(entry.counters),
        })),
      };
    case "completed":
      return {
        attempt: message.attempt,
        output: outputToWire(message.output),
        stats: statsToWire(message.stats),
        ...(message.bad && { bad: badToWire(message.bad) }),
      };
    case "failed": {
      const { attempt, class: why, logTail, lostOutputs } = message;
      return { attempt, class: why, message: message.message, logTail, lostOutputs };
    }
    case "goodbye":
      return {};
  }
}

export function workerMessageFromWire(wire: SessionRequest): WorkerMessage {
  const { message } = wire;
  switch (message.case) {
    case "hello": {
      const { workerId, host, pid, slots, attempts } = message.value;
      const reducesPerSlot = message.value.reducesPerSlot || 1;
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(workerId)) throw refuse("a bad worker id");
      if (slots < 1 || slots > 10_000) throw refuse("slots out of range");
      if (reducesPerSlot < 1 || reducesPerSlot > 100) throw refuse("reduces per slot out of range");
      for (const attempt of attempts) checkAttempt(attempt);
      return {
        kind: "hello",
        worker: { id: workerId, host, pid, slots, reducesPerSlot },
        attempts,
      };
    }
    case "ready": {
      const { free, grantsSeen: seen, ahead } = message.value;
      if (free < 0 || seen < 0 || ahead < 0) throw refuse("a negative count");
      return { kind: "ready", free, seen, ahead };
    }
    case "heartbeat":
      return {
        kind: "heartbeat",
        seq: Number(message.value.seq),
        attempts: message.value.attempts.map((entry) => ({
          attempt: checkAttempt(entry.attempt),
          bytesIn: Number(entry.bytesIn),
          bytesTotal: Number(entry.bytesTotal),
          status: entry.status.slice(0, 500),
          counters: countersFromWire(entry.counters),
        })),
      };
    case "completed":
      return {
        kind: "completed",
        attempt: checkAttempt(message.value.attempt),
        output: outputFromWire(message.value.output),
        stats: statsFromWire(message.value.stats),
        bad: badFromWire(message.value.bad),
      };
    case "failed": {
      const { attempt, class: why, logTail } = message.value;
      if (!isFailureClass(why)) throw refuse(`no failure class ${why.slice(0, 50)}`);
      return {
        kind: "failed",
        attempt: checkAttempt(attempt),
        class: why,
        message: message.value.message.slice(0, 2_000),
        logTail: logTail.slice(-8_000),
        lostOutputs: message.value.lostOutputs.map(checkAttempt),
      };
    }
    case "goodbye":
      return { kind: "goodbye" };
    default:
      throw refuse("a message of no known kind");
  }
}

export function masterMessageToWire(message: MasterMessage): SessionResponse {
  const value = masterBody(message);
  return create(SessionResponseSchema, { message: { case: message.kind, value } } as never);
}

function masterBody(message: MasterMessage): object {
  switch (message.kind) {
    case "welcome":
      return { ...message, epoch: big(message.epoch) };
    case "renewed":
      return { seq: big(message.seq) };
    case "grant":
      return grantToWire(message.assignment);
    case "revoke":
      return { attempt: message.attempt, reason: message.reason };
    case "settled":
      return { attempt: message.attempt, won: message.won };
    case "prefetch": {
      const { job, partition, sources, maps } = message;
      return { job, partition, sources: sources.map(sourceToWire), maps };
    }
    case "forget":
      return { job: message.job };
    case "drain":
      return {};
  }
}

export function masterMessageFromWire(wire: SessionResponse): MasterMessage {
  const { message } = wire;
  switch (message.case) {
    case "welcome": {
      const { epoch, heartbeatMs, leaseMs } = message.value;
      return { kind: "welcome", epoch: Number(epoch), heartbeatMs, leaseMs };
    }
    case "renewed":
      return { kind: "renewed", seq: Number(message.value.seq) };
    case "grant":
      return { kind: "grant", assignment: grantFromWire(message.value) };
    case "revoke":
      return { kind: "revoke", attempt: message.value.attempt, reason: message.value.reason };
    case "settled":
      return { kind: "settled", attempt: message.value.attempt, won: message.value.won };
    case "prefetch": {
      const { job, partition, sources, maps } = message.value;
      if (job === undefined || sources.length !== maps.length) throw refuse("a bad prefetch");
      const told = { job: jobFromWire(job), partition, maps };
      return { kind: "prefetch", ...told, sources: sources.map(sourceFromWire) };
    }
    case "forget":
      return { kind: "forget", job: message.value.job };
    case "drain":
      return { kind: "drain" };
    default:
      throw refuse("a message of no known kind");
  }
}

export function grantToWire({ attempt, job, input }: Assignment) {
  const task =
    input.kind === "map"
      ? {
          case: "map",
          value: {
            ranges: input.split.map((range) => ({
              ...range,
              start: big(range.start),
              length: big(range.length),
              size: big(range.size),
            })),
            narrow: input.narrow,
          },
        }
      : {
          case: "reduce",
          value: {
            partition: input.partition,
            sources: input.sources.map(sourceToWire),
            ...(input.keys === undefined ? {} : { keys: boundsToWire(input.keys) }),
          },
        };
  return { attempt, job, task };
}

export function grantFromWire(grant: Grant): Assignment {
  const { attempt, job, task } = grant;
  if (job === undefined || task.case === undefined) throw refuse("a grant without job or task");
  return {
    attempt: checkAttempt(attempt),
    job: jobFromWire(job),
    input:
      task.case === "map"
        ? {
            kind: "map",
            narrow: task.value.narrow,
            split: task.value.ranges.map((range) => ({
              container: range.container,
              name: range.name,
              etag: range.etag,
              start: Number(range.start),
              length: Number(range.length),
              size: Number(range.size),
            })),
          }
        : {
            kind: "reduce",
            partition: task.value.partition,
            sources: task.value.sources.map(sourceFromWire),
            keys: task.value.keys && boundsFromWire(task.value.keys),
          },
  };
}

function jobFromWire(job: JobMessage): TaskJob {
  const { id, name, command, files, env, conf, maps, reduces, output, scripts } = job;
  const { badRecordsMax, badOutput, combiner, partitioner, outputFormat, sortValues, network } =
    job;
  return {
    id,
    name,
    command,
    files,
    env,
    conf,
    maps,
    reduces,
    output,
    scripts,
    badRecordsMax,
    badOutput,
    combiner,
    partitioner,
    outputFormat,
    sortValues,
    network,
  };
}

function boundsToWire({ from, to }: KeyBounds) {
  return { ...(from !== undefined && { from }), ...(to !== undefined && { to }) };
}

function boundsFromWire({ from, to }: BoundsMessage): KeyBounds {
  return { from: from && Buffer.from(from), to: to && Buffer.from(to) };
}

function outputToWire(output: TaskOutput): object {
  if (output.kind === "segments")
    return { output: { case: "segments", value: segmentsToWire(output) } };
  return { output: { case: "part", value: partToWire(output.receipt) } };
}

function outputFromWire(message: OutputMessage | undefined): TaskOutput {
  const output = message?.output;
  if (output?.case === "segments") return segmentsFromWire(output.value);
  if (output?.case !== "part") throw refuse("a completed attempt without output");
  return { kind: "part", receipt: partFromWire(output.value) };
}

function partToWire({ container, name, size, token }: Receipt) {
  return { container, name, size: big(size), token };
}

function partFromWire({ container, name, size, token }: PartMessage): Receipt {
  const fault = containerNameFault(container) ?? blobNameFault(name);
  if (fault !== undefined || token.length > 2_000) throw refuse(`a bad receipt: ${fault}`);
  return { container, name, size: Number(size), token };
}

function badToWire({ records, receipt }: BadRecords) {
  return { records: big(records), part: partToWire(receipt) };
}

function badFromWire(message: BadMessage | undefined): BadRecords | undefined {
  if (message === undefined) return undefined;
  const records = Number(message.records);
  if (records < 1 || message.part === undefined)
    throw refuse("bad records without a number or a place");
  return { records, receipt: partFromWire(message.part) };
}

function segmentsToWire(segments: Segments) {
  const { object, size, indexOffset, digest, sizes } = segments;
  return { object, size: big(size), indexOffset: big(indexOffset), digest, sizes };
}

function segmentsFromWire(message: SegmentsMessage): Segments {
  const { digest, sizes } = message;
  if (digest.length > 100) throw refuse("a digest that is too long");
  if (sizes.length > 1_000 || !/^[A-Za-z0-9+/]*={0,2}$/.test(sizes))
    throw refuse("bad sizes of segments");
  return { kind: "segments", ...placeFromWire(message), digest, sizes };
}

function placeFromWire({ object, size, indexOffset }: SegmentsMessage | SourceMessage) {
  const fault = blobNameFault(object);
  if (fault !== undefined) throw refuse(`a bad object name: ${fault}`);
  return { object, size: Number(size), indexOffset: Number(indexOffset) };
}

function sourceToWire({ object, size, indexOffset, at }: Source) {
  const place = { object, size: big(size), indexOffset: big(indexOffset) };
  return at === undefined ? place : { ...place, offset: big(at.offset), bytes: big(at.bytes) };
}

function sourceFromWire(message: SourceMessage): Source {
  const { offset, bytes } = message;
  const at =
    offset === undefined || bytes === undefined
      ? undefined
      : { offset: Number(offset), bytes: Number(bytes) };
  return { ...placeFromWire(message), at };
}

function countersToWire(counters: Record<string, number>): Record<string, bigint> {
  return Object.fromEntries(Object.entries(counters).map(([name, value]) => [name, big(value)]));
}

const COUNTERS_MAX = 200;

function countersFromWire(counters: Record<string, bigint>): Record<string, number> {
  const some = Object.entries(counters).slice(0, COUNTERS_MAX);
  return Object.fromEntries(some.map(([name, value]) => [name.slice(0, 200), Number(value)]));
}

function statsToWire(stats: TaskStats) {
  return {
    recordsIn: big(stats.recordsIn),
    bytesIn: big(stats.bytesIn),
    recordsOut: big(stats.recordsOut),
    bytesOut: big(stats.bytesOut),
    wallMs: big(stats.wallMs),
    counters: countersToWire(stats.counters),
  };
}

function statsFromWire(stats: StatsMessage | undefined): TaskStats {
  if (stats === undefined) throw refuse("a completed attempt without figures");
  return {
    recordsIn: Number(stats.recordsIn),
    bytesIn: Number(stats.bytesIn),
    recordsOut: Number(stats.recordsOut),
    bytesOut: Number(stats.bytesOut),
    wallMs: Number(stats.wallMs),
    counters: countersFromWire(stats.counters),
  };
}

function checkAttempt(attempt: string): string {
  if (parseAttemptId(attempt) === undefined) throw refuse("a bad attempt id");
  return attempt;
}
