/**
 * A task whose workers have died may be what they died of (it takes the memory of the whole
 * process, say). After some deaths it is granted only to a worker that runs nothing else, and is given
 * nothing else meanwhile: then it takes no other's work with it, and if that worker dies as well, it
 * was this task. For such a grant one worker is kept from new tasks until it is empty.
 */
import { currentlyReady, grant } from "./assign.ts";
import type { Command } from "./events.ts";
import { DEATHS_MAX, type State, sharesNeeded, type Task, type Worker } from "./state.ts";

/** @returns why the task is given up, if it is. */
export function countDeath(task: Task, ranAlone: boolean): string | undefined {
  if (ranAlone) task.deathsAlone += 1;
  else task.deaths += 1;
  if (task.deathsAlone >= DEATHS_MAX) {
    const times = task.deaths + task.deathsAlone;
    return `its worker died ${times} times, ${task.deathsAlone} of them with nothing else to run`;
  }
  return undefined;
}

export function grantAlone(state: State, atMs: number, out: Command[]): void {
  if (state.alone.size === 0) return;
  for (const [task, job] of state.alone)
    if (job.stage.kind === "ended" || task.state.kind !== "pending") state.alone.delete(task);
  const waiting = [...state.alone].find(([task, job]) => currentlyReady(job, task));
  if (waiting === undefined) return void unreserve(state);
  const [task, job] = waiting;
  const worker = reserved(state);
  if (worker === undefined || worker.attempts.size > 0) return;
  if (worker.free - (worker.sent - worker.seen) < sharesNeeded(task, worker)) return;
  state.alone.delete(task);
  grant(state, job, task, worker, atMs, out);
}

/** The one that is emptied; where there is none, the one with the least to do. */
function reserved(state: State): Worker | undefined {
  let best: Worker | undefined;
  for (const worker of state.workers.values()) {
    if (worker.session === undefined || worker.alone !== undefined) continue;
    if (worker.reserved) return worker;
    if (best === undefined || worker.attempts.size < best.attempts.size) best = worker;
  }
  if (best !== undefined) best.reserved = true;
  return best;
}

function unreserve(state: State): void {
  for (const worker of state.workers.values()) {
    if (!worker.reserved) continue;
    worker.reserved = false;
    state.idle.add(worker.info.id);
  }
}
