import { cutsRanges } from "../model/contract.ts";
import { locateSegment } from "../model/segment_sizes.ts";
import { byFairness, credit } from "./assign.ts";
import { planOf, taskJobFrom } from "./assignment.ts";
import type { Command } from "./events.ts";
import { send } from "./leases.ts";
import type { EarlyReduce, Job, State, Worker } from "./state.ts";

/**
 * While the last map tasks of a job run, slots stand free. Their workers are told of the outputs that are
 * there, each for one reduce task a free slot, so that the tasks stay spread: they may fetch and merge them, and the task goes
 * to them first when the last map is done (assign.ts). They are hints and no more: no lease, no record; a map task
 * that comes back finds its slot as free as before, and whoever knows nothing reads all by itself.
 */
export function beginReducesEarly(state: State, atMs: number, out: Command[]): void {
  const jobs = [...state.jobs.values()].filter(waitsForLastMaps);
  if (jobs.length === 0) return;
  const slots = freeSlots(state, atMs);
  for (const job of jobs.toSorted(byFairness(state))) {
    for (const [partition, early] of job.early) tell(state, job, partition, early, out);
    for (let partition = 0; partition < job.reduce.tasks.length && slots.size > 0; partition += 1) {
      if (job.early.has(partition)) continue;
      const [[worker]] = slots as unknown as [[Worker, number]];
      takeSlot(slots, worker);
      const early = { worker: worker.info.id, told: 0 };
      job.early.set(partition, early);
      tell(state, job, partition, early, out);
    }
  }
}

/** All its map tasks are done or run, and where their keys will go is known. */
function waitsForLastMaps({ stage, map, reduce, mapsDone, held, record }: Job): boolean {
  return (
    stage.kind === "map" &&
    record.spec.phase !== "map" &&
    reduce.tasks.length > 0 &&
    mapsDone.length > 0 &&
    map.ready.length === 0 &&
    map.delayed.length === 0 &&
    !held &&
    !cutsRanges(record.spec, reduce.tasks.length)
  );
}

/** Of workers that have any left, beside those that prepare a task already. */
function freeSlots(state: State, atMs: number): Map<Worker, number> {
  const slots = new Map<Worker, number>();
  for (const id of state.idle) {
    const worker = state.workers.get(id);
    if (worker === undefined) continue;
    const free = Math.floor(credit(worker, atMs) / worker.info.reducesPerSlot);
    if (free > 0) slots.set(worker, free);
  }
  for (const { early, stage } of state.jobs.values()) {
    if (stage.kind !== "map") continue;
    for (const { worker: id } of early.values()) {
      const worker = state.workers.get(id);
      if (worker !== undefined) takeSlot(slots, worker);
    }
  }
  return slots;
}

function takeSlot(slots: Map<Worker, number>, worker: Worker): void {
  const free = slots.get(worker) ?? 0;
  if (free > 1) slots.set(worker, free - 1);
  else slots.delete(worker);
}

/** What it has not heard of yet. */
function tell(state: State, job: Job, partition: number, early: EarlyReduce, out: Command[]): void {
  const worker = state.workers.get(early.worker);
  if (worker?.session === undefined) return void job.early.delete(partition);
  const maps = job.mapsDone.slice(early.told);
  early.told = job.mapsDone.length;
  const told = maps.flatMap((map) => {
    const done = job.map.tasks[map]?.state;
    if (done?.kind !== "done" || done.done.output.kind !== "segments") return [];
    const { object, size, indexOffset, sizes } = done.done.output;
    return [{ map, source: { object, size, indexOffset, at: locateSegment(sizes, partition) } }];
  });
  if (told.length === 0) return;
  job.told.reduce ??= taskJobFrom(job.record, planOf(job), "reduce");
  send(
    worker,
    {
      kind: "prefetch",
      job: job.told.reduce,
      partition,
      sources: told.map(({ source }) => source),
      maps: told.map(({ map }) => map),
    },
    out,
  );
}

/** What its reduce tasks have not used is not used any more. */
export function forgetEarlyReduces(state: State, job: Job, out: Command[]): void {
  for (const id of new Set([...job.early.values()].map(({ worker }) => worker))) {
    const worker = state.workers.get(id);
    if (worker !== undefined) send(worker, { kind: "forget", job: job.record.id }, out);
  }
  job.early.clear();
}
