import { create } from "@bufbuild/protobuf";
import { MrError } from "../model/errors.ts";
import { parseAttemptId } from "../model/ids.ts";
import { blobNameFault, containerNameFault } from "../model/names.ts";
import type { MasterMessage, WorkerMessage } from "../model/session.ts";
import type {
  Assignment,
  AttemptProgress,
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
        attempts: beatsToWire(message.attempts),
      };
    case "completed":
      return {
        attempt: message.attempt,
        output: outputToWire(message.output),
        stats: statsToWire(message.stats),
        ...(message.bad && { bad: badToWire(message.bad) }),
      };
    case "failed": {
      const { attempt, class: why, lostOutputs } = message;
      return {
        attempt,
        class: why,
        message: message.message.slice(0, MESSAGE_CHARS_MAX),
        logTail: message.logTail.slice(-LOG_TAIL_CHARS_MAX),
        lostOutputs,
      };
    }
    case "goodbye":
      return {};
  }
}

/** Of what scripts count and say of themselves, in one heartbeat, in characters. */
const SAID_CHARS_MAX = 512 * 1024;

/** Where scripts say too much, that of some attempts waits for the end: the leases must not. */
function beatsToWire(attempts: AttemptProgress[]) {
  let said = 0;
  return attempts.map(({ counters, status, ...entry }) => {
    for (const name of Object.keys(counters)) said += name.length + 20;
    said += status.length;
    const fits = said <= SAID_CHARS_MAX;
    return {
      ...entry,
      bytesIn: big(entry.bytesIn),
      bytesTotal: big(entry.bytesTotal),
      status: fits ? status : "",
      counters: fits ? countersToWire(counters) : {},
    };
  });
}

/** Tasks that a worker may run at a time. */
const SHARES_MAX = 3_000;
/** Of each of them: one that runs, one that waits, and some that are sealed. */
const HELD_PER_SHARE = 8;
const LOST_MAX = 10_000;
const STATUS_CHARS_MAX = 500;
const MESSAGE_CHARS_MAX = 2_000;
const LOG_TAIL_CHARS_MAX = 8_000;
const COUNTERS_MAX = 200;
const COUNTER_NAME_CHARS_MAX = 200;

/**
 * The fields that a worker's message has at most. Before its hello it has nothing to say but the
 * attempts that it holds; then one that runs few tasks at a time has little to say of them.
 * @param slots tasks that it runs at a time; 0: it has not said hello.
 */
export function fieldsMax(slots: number): number {
  if (slots === 0) return HELD_PER_SHARE * SHARES_MAX + 100;
  const held = HELD_PER_SHARE * slots;
  // A counter is an entry, its name and its figure; all of a heartbeat's are bounded by their names.
  const counters = Math.min(held * COUNTERS_MAX, SAID_CHARS_MAX / 20);
  return LOST_MAX + 2_000 + 6 * held + 3 * Math.round(counters);
}

/**
 * Every field has a bound: what a worker says becomes records, and views.
 * @param slots tasks that it runs at a time, as it said in its hello.
 * @returns undefined: a message of a kind that only newer versions know.
 * @throws MrError `invalid`
 */
export function workerMessageFromWire(
  wire: SessionRequest,
  slots: number,
): WorkerMessage | undefined {
  const { message } = wire;
  switch (message.case) {
    case "hello": {
      const { workerId, host, pid, slots, attempts } = message.value;
      const reducesPerSlot = message.value.reducesPerSlot || 1;
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(workerId)) throw refuse("a bad worker id");
      if (!/^[\w.:-]{0,253}$/.test(host)) throw refuse("a bad host");
      const shares = slots * reducesPerSlot;
      const isOne = slots >= 1 && reducesPerSlot >= 1;
      if (!isOne || shares > SHARES_MAX) throw refuse("slots out of range");
      checkAttempts(attempts, HELD_PER_SHARE * shares);
      const worker = { id: workerId, host, pid: whole(pid, "pid"), slots, reducesPerSlot };
      return { kind: "hello", worker, attempts };
    }
    case "ready": {
      const { free, grantsSeen: seen, ahead } = message.value;
      for (const count of [free, seen, ahead]) whole(count, "count");
      return { kind: "ready", free, seen, ahead };
    }
    case "heartbeat": {
      const { seq, attempts } = message.value;
      if (attempts.length > HELD_PER_SHARE * slots) throw refuse("too many attempts");
      return {
        kind: "heartbeat",
        seq: whole(seq, "number"),
        attempts: attempts.map((entry) => ({
          attempt: checkAttempt(entry.attempt),
          bytesIn: whole(entry.bytesIn, "figure"),
          bytesTotal: whole(entry.bytesTotal, "figure"),
          status: cut(entry.status, 0, STATUS_CHARS_MAX),
          counters: countersFromWire(entry.counters),
        })),
      };
    }
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
        message: cut(message.value.message, 0, MESSAGE_CHARS_MAX),
        logTail: cut(logTail, -LOG_TAIL_CHARS_MAX),
        lostOutputs: checkAttempts(message.value.lostOutputs, LOST_MAX),
      };
    }
    case "goodbye":
      return { kind: "goodbye" };
    default:
      if (wire.$unknown !== undefined) return undefined;
      throw refuse("a message that says nothing");
  }
}

/** As `slice`, but a copy: a part of a text keeps the whole of it in memory. */
function cut(text: string, from: number, to = text.length): string {
  const part = text.slice(from, to);
  return part.length === text.length ? text : Buffer.from(part).toString();
}

/** A count, or a figure: never below nothing, and exact. */
function whole(value: number | bigint, what: string): number {
  if (value < 0 || value > Number.MAX_SAFE_INTEGER) throw refuse(`a ${what} out of range`);
  return Number(value);
}

function checkAttempts(attempts: string[], most: number): string[] {
  if (attempts.length > most) throw refuse("too many attempts");
  return attempts.map(checkAttempt);
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

/** @returns undefined: a message of a kind that only newer versions know. */
export function masterMessageFromWire(wire: SessionResponse): MasterMessage | undefined {
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
      if (wire.$unknown !== undefined) return undefined;
      throw refuse("a message that says nothing");
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
  if (fault !== undefined) throw refuse(`a bad receipt: ${fault}`);
  if (!/^[\w./:-]{1,500}$/.test(token)) throw refuse("a bad receipt: its token");
  return { container, name, size: whole(size, "size"), token };
}

function badToWire({ records, receipt }: BadRecords) {
  return { records: big(records), part: partToWire(receipt) };
}

function badFromWire(message: BadMessage | undefined): BadRecords | undefined {
  if (message === undefined) return undefined;
  const records = whole(message.records, "number of records");
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
  if (!/^[\w+/=:-]{0,100}$/.test(digest)) throw refuse("a bad digest");
  if (sizes.length > 1_000 || !/^[A-Za-z0-9+/]*={0,2}$/.test(sizes))
    throw refuse("bad sizes of segments");
  const place = placeFromWire(message);
  if (place.indexOffset > place.size) throw refuse("an index beyond its object");
  return { kind: "segments", ...place, digest, sizes };
}

function placeFromWire({ object, size, indexOffset }: SegmentsMessage | SourceMessage) {
  const fault = blobNameFault(object);
  if (fault !== undefined) throw refuse(`a bad object name: ${fault}`);
  return {
    object,
    size: whole(size, "size"),
    indexOffset: whole(indexOffset, "offset"),
  };
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

function countersFromWire(counters: Record<string, bigint>): Record<string, number> {
  const some = Object.entries(counters).slice(0, COUNTERS_MAX);
  const most = BigInt(Number.MAX_SAFE_INTEGER);
  return Object.fromEntries(
    some
      .filter(([name]) => name !== "__proto__")
      .map(([name, value]) => [
        cut(name, 0, COUNTER_NAME_CHARS_MAX),
        Number(value > most ? most : value < -most ? -most : value),
      ]),
  );
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
    recordsIn: whole(stats.recordsIn, "figure"),
    bytesIn: whole(stats.bytesIn, "figure"),
    recordsOut: whole(stats.recordsOut, "figure"),
    bytesOut: whole(stats.bytesOut, "figure"),
    wallMs: whole(stats.wallMs, "figure"),
    counters: countersFromWire(stats.counters),
  };
}

function checkAttempt(attempt: string): string {
  if (parseAttemptId(attempt) === undefined) throw refuse("a bad attempt id");
  return attempt;
}
