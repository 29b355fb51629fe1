import { byFairness, grant, hasRoom } from "./assign.ts";
import type { Command } from "./events.ts";
import {
  type Attempt,
  currentPhase,
  type Job,
  type Phase,
  type State,
  type Task,
  type Worker,
} from "./state.ts";

/** Before this share of a phase is done, nobody knows what is slow. */
const DONE_SHARE = 0.25;

/**
 * Backup attempts: when nothing else is left to grant, a task that runs much
 * longer than its like is granted once more, on another worker. The first to
 * complete wins (S1), the other is revoked.
 */
export function backUpStragglers(state: State, atMs: number, out: Command[]): void {
  if (state.idle.size === 0) return;
  const jobs = [...state.jobs.values()].filter((job) => currentPhase(job) !== undefined);
  for (const job of jobs.toSorted(byFairness(state))) {
    for (const { task, attempt } of stragglers(state, job, atMs)) {
      const worker = otherWorker(state, attempt.worker, task, atMs);
      if (worker !== undefined) grant(state, job, task, worker, atMs, out);
    }
  }
}

/** Those with one live attempt, the longest running first. */
function stragglers(state: State, job: Job, atMs: number): { task: Task; attempt: Attempt }[] {
  const phase = currentPhase(job);
  if (phase === undefined || job.held || phase.ready.length > 0) return [];
  if (phase.done === 0 || phase.done < phase.tasks.length * DONE_SHARE) return [];
  const { backupFactor, backupMinMs } = state.config;
  const limitMs = Math.max(backupMinMs, medianMs(phase) * backupFactor);
  const found: { task: Task; attempt: Attempt }[] = [];
  for (const task of phase.tasks) {
    if (task.state.kind !== "running") continue;
    const live = [...task.attempts].flatMap((id) => state.attempts.get(id) ?? []);
    const [attempt, ...others] = live.filter(({ revoked }) => !revoked);
    if (attempt === undefined || others.length > 0 || attempt.alone) continue;
    if (atMs - attempt.startedAtMs > limitMs) found.push({ task, attempt });
  }
  return found.toSorted((a, b) => a.attempt.startedAtMs - b.attempt.startedAtMs);
}

/** How long its done tasks took. */
function medianMs(phase: Phase): number {
  const took = new Float64Array(phase.done);
  let count = 0;
  for (const { state } of phase.tasks)
    if (state.kind === "done") took[count++] = state.done.stats.wallMs;
  return took.sort()[count >> 1] as number;
}

function otherWorker(state: State, busy: string, task: Task, atMs: number): Worker | undefined {
  for (const id of state.idle) {
    const worker = state.workers.get(id);
    if (worker === undefined || id === busy || task.avoid.includes(id)) continue;
    if (hasRoom(worker, task, atMs)) return worker;
  }
  return undefined;
}
