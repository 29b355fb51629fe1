/** What one client can take from others: places, slots and room are shared among owners, not among jobs. */
import type { Job, State } from "./state.ts";

/**
 * How many jobs of the same owner stand before each one, in this order, on top of those it has
 * already. Whoever takes jobs by this number takes from all owners in turn.
 */
export function turnsOf(jobs: Job[], taken: ReadonlyMap<string, number> = NONE): Map<Job, number> {
  const counts = new Map(taken);
  const turns = new Map<Job, number>();
  for (const job of jobs) {
    const { owner } = job.record;
    const turn = counts.get(owner) ?? 0;
    turns.set(job, turn);
    counts.set(owner, turn + 1);
  }
  return turns;
}

const NONE: ReadonlyMap<string, number> = new Map();

export function countByOwner(jobs: Job[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { record } of jobs) counts.set(record.owner, (counts.get(record.owner) ?? 0) + 1);
  return counts;
}

/** An attempt of this job begins to count, or counts no longer. */
export function countRunning(state: State, job: Job, by: 1 | -1): void {
  job.running += by;
  const { owner } = job.record;
  const running = runningOf(state, job) + by;
  if (running === 0) state.running.delete(owner);
  else state.running.set(owner, running);
}

/** Live attempts of all jobs of its owner. */
export function runningOf(state: State, { record }: Job): number {
  return state.running.get(record.owner) ?? 0;
}
