import { attemptId, taskId } from "../model/ids.ts";
import { sharesOf, type TaskJob } from "../model/task.ts";
import { assignmentFrom, planOf, taskJobFrom } from "./assignment.ts";
import type { Command } from "./events.ts";
import { openLease } from "./leases.ts";
import { runningOf } from "./owners.ts";
import {
  currentPhase,
  type Job,
  mustRunAlone,
  type Phase,
  type State,
  type Task,
  type Worker,
} from "./state.ts";

/** What a worker may be granted right now (S2), in shares: those free less what is still on its way. */
export function credit(worker: Worker, atMs: number): number {
  if (worker.session === undefined || isKept(worker)) return 0;
  if (atMs < worker.probationUntilMs && worker.attempts.size > 0) return 0;
  return worker.free - (worker.sent - worker.seen);
}

/** What it may have waiting, where much is left to grant. */
function aheadOf(worker: Worker, atMs: number): number {
  const isAway = worker.session === undefined || isKept(worker);
  return isAway || atMs < worker.probationUntilMs ? 0 : worker.ahead;
}

/** For a task that is to run alone. */
function isKept({ reserved, alone }: Worker): boolean {
  return reserved || alone !== undefined;
}

/** So many tasks are left for each slot that none waits in vain for one where another stands idle. */
function isDeepJob(state: State, job: Job | undefined): boolean {
  const ready = (job && currentPhase(job)?.ready.length) ?? 0;
  if (ready <= AHEAD_TASKS_PER_SLOT) return false;
  if (state.slots === undefined) {
    state.slots = 0;
    for (const { info } of state.workers.values()) state.slots += info.slots;
  }
  return ready > AHEAD_TASKS_PER_SLOT * state.slots;
}

const AHEAD_TASKS_PER_SLOT = 2;

/** Whether it has a slot for the task, or a share of one. */
export function hasRoom(worker: Worker, task: Task, atMs: number): boolean {
  return credit(worker, atMs) >= sharesOf(task.kind, worker.info);
}

/**
 * Grants ready tasks to free slots: among jobs, the highest priority first and
 * then those of the owner with the fewest running attempts, and of these the one with the fewest; among workers, in turn. A worker whose
 * free shares do not suffice for the job whose turn it is keeps them: else the
 * reduce tasks of one job, of which a slot takes several, would keep the map tasks of another out.
 */
export function assignTasks(state: State, atMs: number, out: Command[]): void {
  if (state.idle.size === 0 || state.runnable.size === 0) return;
  const isDeep = [...state.runnable].some((id) => isDeepJob(state, state.jobs.get(id)));
  const refused = new Set<Worker>();
  while (state.idle.size > refused.size && state.runnable.size > 0) {
    const worker = nextWorker(state, atMs, isDeep, refused);
    if (worker === undefined) return;
    const found = nextTask(state, worker, atMs);
    if (found === undefined) {
      refused.add(worker);
      continue;
    }
    grant(state, found.job, found.task, worker, atMs, out);
  }
}

function nextWorker(
  state: State,
  atMs: number,
  isDeep: boolean,
  refused: Set<Worker>,
): Worker | undefined {
  for (const id of state.idle) {
    const worker = state.workers.get(id);
    state.idle.delete(id);
    if (worker === undefined || worker.session === undefined) continue;
    const available = credit(worker, atMs) + (isDeep ? aheadOf(worker, atMs) : 0);
    // A worker on probation keeps its place: its credit comes back with time, not with a message.
    if (available > 0 || atMs < worker.probationUntilMs) state.idle.add(id);
    else continue;
    if (available > 0 && !refused.has(worker)) return worker;
    refused.add(worker);
    if (refused.size >= state.idle.size) return undefined;
  }
  return undefined;
}

/**
 * A task goes back to a worker that failed it only when no other could take it now,
 * and past one that has begun with it (early_reduces.ts) only when that one could not.
 */
function mayRun(state: State, job: Job, task: Task, worker: Worker, atMs: number): boolean {
  if (mustRunAlone(task)) return false;
  const early = task.kind === "reduce" ? job.early.get(task.index)?.worker : undefined;
  if (early !== undefined && early !== worker.info.id && !task.avoid.includes(early)) {
    const other = state.idle.has(early) ? state.workers.get(early) : undefined;
    if (other !== undefined && hasRoom(other, task, atMs)) return false;
  }
  if (!task.avoid.includes(worker.info.id)) return true;
  for (const id of state.idle) {
    const other = state.workers.get(id);
    if (other !== undefined && !task.avoid.includes(id) && hasRoom(other, task, atMs)) return false;
  }
  return true;
}

function nextTask(
  state: State,
  worker: Worker,
  atMs: number,
): { job: Job; task: Task } | undefined {
  const passed = new Set<Job>();
  for (let job = fairest(state, passed); job !== undefined; job = fairest(state, passed)) {
    const phase = currentPhase(job);
    const ahead = isDeepJob(state, job) ? aheadOf(worker, atMs) : 0;
    const available = credit(worker, atMs) + ahead;
    if (phase !== undefined && available < sharesOf(phase.kind, worker.info)) return undefined;
    const task = phase && takeReady(phase, (one) => mayRun(state, job as Job, one, worker, atMs));
    if (task !== undefined) return { job, task };
    passed.add(job);
  }
  return undefined;
}

/** Of the jobs with something to grant, the one whose turn it is; others are forgotten here. */
function fairest(state: State, passed: Set<Job>): Job | undefined {
  const compare = byFairness(state);
  let best: Job | undefined;
  for (const id of state.runnable) {
    const job = state.jobs.get(id);
    if (job === undefined || (currentPhase(job)?.ready.length ?? 0) === 0)
      state.runnable.delete(id);
    else if (!passed.has(job) && (best === undefined || compare(job, best) < 0)) best = job;
  }
  return best;
}

export function byFairness(state: State): (a: Job, b: Job) => number {
  return (a, b) =>
    b.record.spec.priority - a.record.spec.priority ||
    runningOf(state, a) - runningOf(state, b) ||
    a.running - b.running ||
    a.record.order - b.record.order;
}

/** Takes the first ready task that may run; entries whose task is no longer pending are dropped. */
function takeReady(phase: Phase, mayRun: (task: Task) => boolean): Task | undefined {
  const passed: number[] = [];
  let found: Task | undefined;
  while (phase.ready.length > 0 && found === undefined) {
    const index = phase.ready.shift() as number;
    const task = phase.tasks[index];
    if (task === undefined || task.state.kind !== "pending") continue;
    if (mayRun(task)) found = task;
    else passed.push(index);
  }
  phase.ready.unshift(...passed);
  return found;
}

/** Whether it waits to be granted. */
export function currentlyReady(job: Job, task: Task): boolean {
  const phase = currentPhase(job);
  return (
    phase?.kind === task.kind && task.state.kind === "pending" && phase.ready.includes(task.index)
  );
}

export function grant(
  state: State,
  job: Job,
  task: Task,
  worker: Worker,
  atMs: number,
  out: Command[],
): void {
  state.grants += 1;
  const id = attemptId(job.record.id, taskId(task.kind, task.index), state.epoch, state.grants);
  openLease(state, job, task, worker, id, atMs);
  if (mustRunAlone(task)) runAlone(state, worker, id);
  worker.sent += sharesOf(task.kind, worker.info);
  const plan = planOf(job);
  job.told[task.kind] ??= taskJobFrom(job.record, plan, task.kind);
  const narrow = task.kind === "map" && mayNarrow(job, task);
  const assignment = assignmentFrom(job.told[task.kind] as TaskJob, plan, task, id, narrow);
  const message = { kind: "grant" as const, assignment };
  out.push({
    kind: "send",
    worker: worker.info.id,
    session: worker.session as number,
    message,
  });
}

function runAlone(state: State, worker: Worker, id: string): void {
  worker.reserved = false;
  worker.alone = id;
  const attempt = state.attempts.get(id);
  if (attempt !== undefined) attempt.alone = true;
}

/** A mapper that has failed twice, or has one try left, is no accident: look for the records at fault. */
function mayNarrow(job: Job, task: Task): boolean {
  const { max_attempts, max_bad_records } = job.record.spec;
  return max_bad_records > 0 && task.userFailures >= Math.min(2, max_attempts - 1);
}
