import { type AttemptId, parseAttemptId } from "../model/ids.ts";
import { LIMIT } from "../model/limits.ts";
import type { DoneRecord } from "../model/records.ts";
import { addCounter } from "../model/task.ts";
import type { Command } from "./events.ts";
import { countRunning } from "./owners.ts";
import {
  type Attempt,
  currentPhase,
  type Job,
  NONE,
  PENDING,
  type Phase,
  RUNNING,
  type State,
  type Task,
  type Worker,
} from "./state.ts";

/** The task's one live lease (S2) begins now, on this worker. */
export function openLease(
  state: State,
  job: Job,
  task: Task,
  worker: Worker,
  id: AttemptId,
  atMs: number,
): void {
  task.state = RUNNING;
  task.attempts = [...task.attempts, id];
  countRunning(state, job, 1);
  worker.attempts.add(id);
  state.attempts.set(id, {
    id,
    job: job.record.id,
    kind: task.kind,
    index: task.index,
    worker: worker.info.id,
    startedAtMs: atMs,
    deadlineMs: atMs + state.config.leaseMs,
    revoked: false,
    alone: false,
    bytesIn: 0,
    bytesTotal: 0,
    status: "",
    counters: {},
  });
}

/** Enters a task's result into the phase's sums. Also used when records are read back. */
export function recordDone(job: Job, phase: Phase, task: Task, done: DoneRecord): void {
  task.state = { kind: "done", done };
  phase.done += 1;
  if (task.kind === "map") job.mapsDone.push(task.index);
  phase.bytesIn += done.stats.bytesIn;
  phase.recordsIn += done.stats.recordsIn;
  phase.outputBytes += outputBytes(done);
  job.badRecords += done.bad?.records ?? 0;
  for (const [name, value] of Object.entries(done.stats.counters))
    if (job.counters.has(name) || job.counters.size < LIMIT.countersPerJob)
      job.counters.set(name, addCounter(job.counters.get(name), value));
}

/** Takes a result out of the books again: its output, or one it rests on, is lost. */
export function forgetDone(job: Job, phase: Phase, task: Task): void {
  if (task.state.kind !== "done") return;
  const { done } = task.state;
  task.state = PENDING;
  phase.done -= 1;
  phase.bytesIn -= done.stats.bytesIn;
  phase.recordsIn -= done.stats.recordsIn;
  phase.outputBytes -= outputBytes(done);
  job.badRecords -= done.bad?.records ?? 0;
  for (const [name, value] of Object.entries(done.stats.counters))
    if (job.counters.has(name)) job.counters.set(name, addCounter(job.counters.get(name), -value));
}

function outputBytes({ output }: DoneRecord): number {
  return output.kind === "segments" ? output.indexOffset : output.receipt.size;
}

/** Tells a live attempt's worker to stop it; the lease lives on until the worker says it is gone. */
export function revoke(state: State, id: AttemptId, reason: string, out: Command[]): void {
  const attempt = state.attempts.get(id);
  if (attempt === undefined || attempt.revoked) return;
  attempt.revoked = true;
  const job = state.jobs.get(attempt.job);
  if (job !== undefined) countRunning(state, job, -1);
  const worker = state.workers.get(attempt.worker);
  if (worker !== undefined) revokeMessage(worker, id, reason, out);
}

export function revokeMessage(
  worker: Worker,
  attempt: AttemptId,
  reason: string,
  out: Command[],
): void {
  send(worker, { kind: "revoke", attempt, reason }, out);
}

export function send(
  worker: Worker,
  message: Extract<Command, { kind: "send" }>["message"],
  out: Command[],
): void {
  if (worker.session === undefined) return;
  out.push({ kind: "send", worker: worker.info.id, session: worker.session, message });
}

export function removeAttempt(state: State, attempt: Attempt): void {
  state.attempts.delete(attempt.id);
  const worker = state.workers.get(attempt.worker);
  worker?.attempts.delete(attempt.id);
  if (worker?.alone === attempt.id) {
    worker.alone = undefined;
    state.idle.add(worker.info.id);
  }
  const job = state.jobs.get(attempt.job);
  if (job === undefined) return;
  if (!attempt.revoked) countRunning(state, job, -1);
  const phase = attempt.kind === "map" ? job.map : job.reduce;
  const task = phase.tasks[attempt.index];
  if (task === undefined) return;
  const others = task.attempts.filter((id) => id !== attempt.id);
  task.attempts = others.length === 0 ? NONE : others;
}

/** So many are remembered. */
const LAPSED_MAX = 10_000;

/** Its worker may still come to an end with it. */
export function rememberLapsed(state: State, { id, worker }: Attempt): void {
  state.lapsed.set(id, worker);
  const [oldest] = state.lapsed.keys();
  if (state.lapsed.size > LAPSED_MAX && oldest !== undefined) state.lapsed.delete(oldest);
}

/**
 * Whether a worker can have an attempt that we do not know: one of ours whose lease has lapsed, or
 * one that an earlier leader has granted, to a worker that it knew, and which was announced.
 */
export function mayHold(state: State, worker: Worker, id: AttemptId): boolean {
  const epoch = Number(parseAttemptId(id)?.attempt.split("-")[0]);
  if (epoch === state.epoch) return state.lapsed.get(id) === worker.info.id;
  return epoch < state.epoch && worker.inherited && worker.announced.has(id);
}

/** The task of an attempt, if its job still plans to use it or has used it. */
export function findTask(
  state: State,
  id: AttemptId,
): { job: Job; phase: Phase; task: Task } | undefined {
  const name = parseAttemptId(id);
  const job = name && state.jobs.get(name.job);
  if (name === undefined || job === undefined) return undefined;
  const phase = name.kind === "map" ? job.map : job.reduce;
  const task = phase.tasks[name.index];
  if (task === undefined) return undefined;
  // Of a stage that is over only the done tasks matter: their winners may ask again.
  if (currentPhase(job) !== phase && task.state.kind !== "done") return undefined;
  return { job, phase, task };
}
