import { contractOf, extensionOf } from "../model/contract.ts";
import type { RecordWrite } from "../model/coordinator.ts";
import { parseAttemptId, partName, taskId } from "../model/ids.ts";
import type { FailureClass } from "../model/job.ts";
import { LIMIT } from "../model/limits.ts";
import { joinName, locationOf } from "../model/names.ts";
import { type DoneRecord, type FailsRecord, key } from "../model/records.ts";
import type { WorkerMessage } from "../model/session.ts";
import { isStagedBy, mapOutputName, type TaskOutput } from "../model/task.ts";
import { countDeath } from "./alone.ts";
import type { Command, Event } from "./events.ts";
import { endJob, sweepIfDrained } from "./job_end.ts";
import { advance } from "./job_stages.ts";
import {
  findTask,
  mayHold,
  recordDone,
  rememberLapsed,
  removeAttempt,
  revoke,
  revokeMessage,
  send,
} from "./leases.ts";
import { findCurrent, loseOutputs, replaceLost, winnersOf } from "./lost_outputs.ts";
import { put } from "./record_writes.ts";
import {
  type Attempt,
  badOutputOf,
  type Job,
  type LossReason,
  makeReady,
  outputOf,
  PENDING,
  type State,
  stateOf,
  type Task,
  type Worker,
} from "./state.ts";

type Said<K extends WorkerMessage["kind"]> = Extract<WorkerMessage, { kind: K }>;
type At = Pick<Event, "atMs" | "wallMs">;

/** Of attempts that a worker has and should not; the others are told of at its next heartbeat. */
const REVOKED_AT_ONCE = 1_000;

export function heartbeat(
  state: State,
  worker: Worker,
  message: Said<"heartbeat">,
  atMs: number,
  out: Command[],
): void {
  let unknown = 0;
  for (const progress of message.attempts) {
    const attempt = state.attempts.get(progress.attempt);
    if (attempt === undefined || attempt.worker !== worker.info.id) {
      unknown += 1;
      // It lapsed here and its task is queued or done elsewhere: stop the waste.
      if (unknown <= REVOKED_AT_ONCE)
        revokeMessage(worker, progress.attempt, "the lease has lapsed", out);
      continue;
    }
    attempt.deadlineMs = atMs + state.config.leaseMs;
    attempt.bytesIn = progress.bytesIn;
    attempt.bytesTotal = progress.bytesTotal;
    attempt.status = progress.status;
    attempt.counters = progress.counters;
    out.push({ kind: "changed", job: attempt.job });
  }
  send(worker, { kind: "renewed", seq: message.seq }, out);
}

/** First commit wins (S1), whoever it is; every attempt is told what became of it (S6). */
export function completed(
  state: State,
  worker: Worker,
  message: Said<"completed">,
  at: At,
  out: Command[],
): void {
  const attempt = state.attempts.get(message.attempt);
  // Another worker's attempt is not this one's to complete.
  if (attempt !== undefined && attempt.worker !== worker.info.id) return;
  const found = findCurrent(state, message.attempt);
  if (found !== undefined && !isExpectedOutput(found.job, message)) {
    const reason = { class: "infra" as const, message: "handed in a wrong output", logTail: "" };
    if (attempt !== undefined) endAttempt(state, attempt, reason, at, out);
    send(worker, { kind: "settled", attempt: message.attempt, won: false }, out);
    return;
  }
  const counts = attempt !== undefined || mayHold(state, worker, message.attempt);
  if (attempt !== undefined) removeAttempt(state, attempt);
  worker.losses = 0;
  if (found === undefined) {
    send(worker, { kind: "settled", attempt: message.attempt, won: isKept(state, message) }, out);
  } else if (found.task.state.kind === "done") {
    const won = found.task.state.done.attempt === message.attempt;
    send(worker, { kind: "settled", attempt: message.attempt, won }, out);
  } else if (!counts) {
    // Nobody has granted it to this worker.
    send(worker, { kind: "settled", attempt: message.attempt, won: false }, out);
  } else {
    win(state, worker, found, message, at, out);
  }
  if (attempt !== undefined) sweepIfDrained(state, attempt.job, out);
}

/** The task's one winner (S1) is recorded, then told; the job moves on. */
function win(
  state: State,
  worker: Worker,
  { job, phase, task }: NonNullable<ReturnType<typeof findTask>>,
  message: Said<"completed">,
  at: At,
  out: Command[],
): void {
  const { attempt, output, stats, bad } = message;
  const done: DoneRecord = { attempt, worker: worker.info.id, output, stats, bad };
  const isRemade = task.lostDigest !== undefined;
  const writes: RecordWrite[] = isRemade
    ? replaceLost(state, job, task, digestOf(output), out)
    : [];
  const name = key.done(job.record.id, taskId(task.kind, task.index));
  writes.push({ key: name, value: JSON.stringify(done) });
  out.push({ kind: "put", writes });
  recordDone(job, phase, task, done);
  for (const other of task.attempts) revoke(state, other, "another attempt won", out);
  send(worker, { kind: "settled", attempt, won: true }, out);
  out.push({ kind: "changed", job: job.record.id });
  if (job.badRecords > job.record.spec.max_bad_records) tooManyBad(state, job, at, out);
  else advance(state, job, at, out);
}

function digestOf(output: TaskOutput): string {
  return output.kind === "segments" ? output.digest : "";
}

function tooManyBad(state: State, job: Job, at: At, out: Command[]): void {
  const { max_bad_records } = job.record.spec;
  const message = `the mapper fails on ${job.badRecords} records of the input; max_bad_records allows ${max_bad_records}`;
  const error = { class: "user", message, task: "", attempt: "", logTail: "" };
  endJob(state, job, { state: "failed", error }, at, out);
}

/**
 * Whether an output is to be kept though its task is no longer known. The objects
 * of a finished map phase are its result, and who won there has been forgotten:
 * better a leftover until the job expires than a hole in the result.
 */
function isKept(state: State, message: Said<"completed">): boolean {
  const job = state.jobs.get(parseAttemptId(message.attempt)?.job ?? "");
  return job !== undefined && job.record.spec.phase === "map" && stateOf(job) === "succeeded";
}

export function failed(
  state: State,
  worker: Worker,
  message: Said<"failed">,
  at: At,
  out: Command[],
): void {
  const attempt = state.attempts.get(message.attempt);
  if (attempt === undefined || attempt.worker !== worker.info.id) return;
  const job = state.jobs.get(attempt.job);
  const lost = job === undefined || attempt.revoked ? [] : winnersOf(job, message.lostOutputs);
  if (job !== undefined && lost.length > 0) {
    // Neither the script's fault nor this worker's.
    endAttempt(state, attempt, { ...message, class: "preempted" }, at, out);
    loseOutputs(state, job, lost, at, out);
    return;
  }
  const itsOwn = !attempt.revoked && message.lostOutputs.length === 0;
  if (message.class === "infra" && itsOwn) countLoss(state, worker, at.atMs);
  if (message.class === "user") worker.losses = 0;
  endAttempt(state, attempt, message, at, out);
}

/** Ends leases that were not renewed in time; their tasks go back to the queue. */
export function lapseLeases(state: State, at: At, out: Command[]): void {
  for (const attempt of [...state.attempts.values()]) {
    if (attempt.deadlineMs > at.atMs) continue;
    const worker = state.workers.get(attempt.worker);
    rememberLapsed(state, attempt);
    if (worker !== undefined) {
      countLoss(state, worker, at.atMs);
      revokeMessage(worker, attempt.id, "the lease has lapsed", out);
    }
    if (worker?.session === undefined)
      loseAttempt(state, attempt, "the worker is gone without a word", at, out, true);
    else loseAttempt(state, attempt, "the worker's lease lapsed", at, out);
  }
}

export function loseAttempt(
  state: State,
  attempt: Attempt,
  message: string,
  at: At,
  out: Command[],
  died = false,
): void {
  const job = state.jobs.get(attempt.job);
  if (job !== undefined && !attempt.revoked) job.attemptsLost += 1;
  endAttempt(state, attempt, { class: "infra", message, logTail: "", died }, at, out);
}

/** An attempt is gone without output: charge its task and queue it again, or fail the job. */
function endAttempt(
  state: State,
  attempt: Attempt,
  reason: LossReason,
  at: At,
  out: Command[],
): void {
  const wasRevoked = attempt.revoked;
  removeAttempt(state, attempt);
  sweepIfDrained(state, attempt.job, out);
  if (wasRevoked) return;
  const found = findTask(state, attempt.id);
  if (found === undefined || found.task.state.kind !== "running") return;
  const { job, phase, task } = found;
  chargeTask(job, task, attempt, reason, out);
  const { class: why, message } = reason;
  out.push({ kind: "lost", attempt: attempt.id, worker: attempt.worker, why, message });
  out.push({ kind: "changed", job: job.record.id });
  const verdict = reason.died
    ? (countDeath(task, attempt.alone) ?? verdictOf(state, job, task, why))
    : (failsAlike(state, task, attempt, reason, at.atMs) ?? verdictOf(state, job, task, why));
  if (verdict !== undefined) {
    const error = { ...(task.firstError ?? errorOf(attempt, reason)) };
    error.message = verdict === "" ? error.message : `${error.message} (${verdict})`;
    endJob(state, job, { state: "failed", error }, at, out);
    return;
  }
  if (liveAttempts(state, task) > 0) return;
  task.state = PENDING;
  const waitMs = backoffMs(state, task, reason.class);
  if (waitMs === 0) makeReady(state, job, phase, task.index, "first");
  else phase.delayed.push({ index: task.index, atMs: at.atMs + waitMs });
}

function chargeTask(
  job: Job,
  task: Task,
  attempt: Attempt,
  reason: LossReason,
  out: Command[],
): void {
  if (reason.class === "preempted" || reason.class === "revoked") return;
  task.lastError = reason.message;
  job.lastError = errorOf(attempt, reason);
  if (reason.class === "infra") {
    task.infraFailures += 1;
    avoid(task, attempt.worker);
    return;
  }
  job.attemptsFailed += 1;
  task.userFailures += 1;
  avoid(task, attempt.worker);
  task.firstError ??= errorOf(attempt, reason);
  const id = taskId(task.kind, task.index);
  const fails: FailsRecord = {
    user: task.userFailures,
    infra: task.infraFailures,
    class: reason.class,
    first: task.firstError,
    last: task.lastError,
  };
  out.push(put(key.fails(job.record.id, id), fails));
}

function avoid(task: Task, worker: string): void {
  if (!task.avoid.includes(worker)) task.avoid = [...task.avoid, worker];
}

/**
 * A disk that is full, a library that is missing: what one worker says after three minutes of
 * trying may pass, what three say at once will not.
 */
function failsAlike(
  { config }: State,
  task: Task,
  attempt: Attempt,
  reason: LossReason,
  atMs: number,
): string | undefined {
  if (reason.class !== "infra" || atMs - attempt.startedAtMs > config.alikeMs) return undefined;
  // But for what is different each time: names, numbers.
  const message = reason.message.replace(/[0-9a-f]{6,}|\d+/g, "#");
  const before = task.alike.message === message ? task.alike.workers : [];
  const workers = before.includes(attempt.worker) ? before : [...before, attempt.worker];
  task.alike = { message, workers };
  return workers.length >= config.alikeWorkers ? `on ${workers.length} workers alike` : undefined;
}

/** Undefined: try again. Otherwise why not ("" when the error says it all). */
function verdictOf(state: State, job: Job, task: Task, why: FailureClass): string | undefined {
  if (why === "input") return "";
  if (why === "user" && task.userFailures >= job.record.spec.max_attempts)
    return task.userFailures === 1 ? "" : `tried ${task.userFailures} times`;
  if (why === "infra" && task.infraFailures >= state.config.infraFailuresMax)
    return `lost ${task.infraFailures} times`;
  return undefined;
}

function errorOf(attempt: Attempt, reason: LossReason) {
  return {
    class: reason.class,
    message: reason.message,
    task: taskId(attempt.kind, attempt.index),
    attempt: parseAttemptId(attempt.id)?.attempt ?? "",
    logTail: reason.logTail,
  };
}

function backoffMs(state: State, task: Task, why: FailureClass): number {
  if (why !== "infra" || task.infraFailures <= 1) return 0;
  const { backoffMinMs, backoffMaxMs } = state.config;
  return Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(task.infraFailures - 2, 20));
}

function countLoss(state: State, worker: Worker, atMs: number): void {
  worker.losses += 1;
  if (worker.losses < state.config.probationLosses) return;
  worker.losses = 0;
  worker.probationUntilMs = atMs + state.config.probationMs;
}

function liveAttempts(state: State, task: Task): number {
  let count = 0;
  for (const id of task.attempts) if (state.attempts.get(id)?.revoked === false) count += 1;
  return count;
}

/** A worker may only hand in what its attempt was to make, where it was to make it. */
function isExpectedOutput(job: Job, message: Said<"completed">): boolean {
  const name = parseAttemptId(message.attempt);
  if (name === undefined) return false;
  const output: TaskOutput = message.output;
  const receipts = [message.bad?.receipt, output.kind === "part" ? output.receipt : undefined];
  if (receipts.some((one) => one !== undefined && !isStagedBy(name.job, one))) return false;
  if (message.bad !== undefined) {
    const { receipt } = message.bad;
    const place = locationOf(badOutputOf(job.record));
    const bad = joinName(place.prefix, name.task);
    if (name.kind !== "map" || receipt.container !== place.container || receipt.name !== bad)
      return false;
  }
  if (name.kind === "map" && job.reduce.tasks.length > 0)
    return (
      output.kind === "segments" &&
      output.object === mapOutputName(message.attempt) &&
      output.size - output.indexOffset <= LIMIT.runIndexBytes
    );
  if (output.kind !== "part") return false;
  const place = locationOf(outputOf(job.record));
  const { compression } = contractOf(job.record.spec);
  const expected = joinName(place.prefix, partName(name.index, extensionOf(compression)));
  return output.receipt.container === place.container && output.receipt.name === expected;
}
