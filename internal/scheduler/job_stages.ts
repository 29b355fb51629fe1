import { cutsRanges } from "../model/contract.ts";
import { taskId } from "../model/ids.ts";
import { joinName, locationOf } from "../model/names.ts";
import { key } from "../model/records.ts";
import { MAP_MANIFEST, type Receipt } from "../model/task.ts";
import type { Command, Event, Marker, Plan } from "./events.ts";
import { endJob } from "./job_end.ts";
import { recordDone } from "./leases.ts";
import { loseOutputs, losePart, winnersOf } from "./lost_outputs.ts";
import { planRecords } from "./plan_records.ts";
import { put } from "./record_writes.ts";
import {
  currentPhase,
  type Job,
  makeReady,
  newPhase,
  outputOf,
  type Phase,
  type State,
  segmentsOf,
  winners,
} from "./state.ts";

type Of<K extends Event["kind"]> = Extract<Event, { kind: K }>;
type At = Pick<Event, "atMs" | "wallMs">;

export function planned(state: State, event: Of<"planned">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job === undefined || job.stage.kind !== "planning") return;
  const maps = event.plan.kind === "splits" ? event.plan.splits.length : event.plan.done.length;
  job.map = newPhase("map", maps);
  job.reduce = newPhase("reduce", job.record.spec.r_num);
  job.startedAtMs = event.wallMs;
  putPlan(job, event.plan, out);
  const { planRecords: records, splitBytes: bytes, startedAtMs } = job;
  out.push(put(key.planned(event.job), { maps, records, bytes, startedAtMs }));
  job.stage = { kind: "map" };
  queueAll(state, job, job.map);
  out.push({ kind: "changed", job: event.job });
  advance(state, job, event, out);
}

/** Each put stands alone (not atomic with the others): they count only once `planned` is there. */
function putPlan(job: Job, plan: Plan, out: Command[]): void {
  const { id } = job.record;
  if (plan.kind === "done") {
    plan.done.forEach((made, index) => {
      // What its maker set aside lies with that job's result.
      const done = { ...made, bad: undefined };
      out.push(put(key.done(id, taskId("map", index)), done));
      const task = job.map.tasks[index];
      if (task !== undefined) recordDone(job, job.map, task, done);
    });
    return;
  }
  job.splits = plan.splits;
  for (const range of plan.splits.flat()) job.splitBytes += range.length;
  for (const record of planRecords(plan.splits)) {
    out.push(put(key.plan(id, job.planRecords), record));
    job.planRecords += 1;
  }
}

function queueAll(state: State, job: Job, phase: Phase): void {
  for (const task of phase.tasks)
    if (task.state.kind === "pending") makeReady(state, job, phase, task.index, "last");
}

export function planFailed(state: State, event: Of<"plan-failed">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job === undefined || job.stage.kind !== "planning") return;
  const error = { class: "input", message: event.message, task: "", attempt: "", logTail: "" };
  endJob(state, job, { state: "failed", error }, event, out);
}

/** Moves a job on when the phase it is in has its last task done (S4). */
export function advance(state: State, job: Job, at: At, out: Command[]): void {
  const phase = currentPhase(job);
  if (phase === undefined || phase.done < phase.tasks.length) return;
  out.push({ kind: "changed", job: job.record.id });
  if (job.stage.kind === "map" && job.reduce.tasks.length > 0 && job.record.spec.phase !== "map") {
    if (mustCut(job)) return cut(job, out);
    job.stage = { kind: "reduce" };
    job.held = false; // Whoever still runs a reduce task was told to stop it.
    job.sources = segmentsOf(job);
    queueAll(state, job, job.reduce);
    advance(state, job, at, out);
    return;
  }
  beginCommit(job, out);
}

/** Whether its keys are to be cut into ranges, and are not yet. */
export function mustCut(job: Job): boolean {
  return job.cuts === undefined && cutsRanges(job.record.spec, job.reduce.tasks.length);
}

/** Once for a job: reducers that were cut differently would lose keys, or have them twice. */
export function cut(job: Job, out: Command[]): void {
  job.cutting = true;
  out.push({ kind: "cut", job: job.record, sources: segmentsOf(job) });
}

export function cutDone(state: State, event: Of<"cut">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job?.stage.kind !== "map" || !job.cutting) return;
  job.cutting = false;
  job.cuts = event.keys.map((bytes) => bytes.toString("base64"));
  out.push(put(key.cuts(event.job), { keys: job.cuts }));
  advance(state, job, event, out);
}

export function cutFailed(state: State, event: Of<"cut-failed">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job?.stage.kind !== "map" || !job.cutting) return;
  job.cutting = false;
  const lost = winnersOf(job, event.lost);
  if (lost.length > 0) return loseOutputs(state, job, lost, event, out);
  const error = { class: "internal", message: event.message, task: "", attempt: "", logTail: "" };
  endJob(state, job, { state: "failed", error }, event, out);
}

/** The point of no return (S5), recorded before anything becomes visible. */
export function beginCommit(job: Job, out: Command[]): void {
  job.stage = { kind: "committing" };
  out.push(put(key.committing(job.record.id), {}));
  publish(job, out);
}

/** Ends a job's wait after a takeover: what is still pending may be granted. */
export function release(state: State, job: Job): void {
  const phase = currentPhase(job);
  if (!job.held || phase === undefined) return;
  job.held = false;
  queueAll(state, job, phase);
}

/** Any later leader may say the same again: it follows from the records alone. */
export function publish(job: Job, out: Command[]): void {
  const results = job.reduce.tasks.length > 0 ? job.reduce : job.map;
  const receipts: Receipt[] = winners(results).flatMap((done) =>
    done.output.kind === "part" ? done.output.receipt : [],
  );
  if (job.record.spec.phase !== "reduce")
    for (const { bad } of winners(job.map)) if (bad !== undefined) receipts.push(bad.receipt);
  out.push({ kind: "publish", job: job.record.id, receipts, marker: markerOf(job) });
}

function markerOf(job: Job): Marker {
  const place = locationOf(outputOf(job.record));
  if (job.record.spec.phase !== "map")
    return { ...place, name: joinName(place.prefix, "_SUCCESS"), body: "" };
  const body = `${winners(job.map)
    .map((done) => JSON.stringify(done))
    .join("\n")}\n`;
  return { ...place, name: joinName(place.prefix, MAP_MANIFEST), body };
}

/** The way back from `committing` (S5). */
export function publishFailed(state: State, event: Of<"publish-failed">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job?.stage.kind === "committing") losePart(state, job, event.gone, event, out);
}

/**
 * The way out of `committing` (S5): the report is the decision. Until it is recorded any leader tries
 * to publish again, and may yet succeed; nobody has been told otherwise.
 */
export function publishRefused(state: State, event: Of<"publish-refused">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job?.stage.kind !== "committing") return;
  const message = `its result cannot be published: ${event.message}`;
  const error = { class: "input", message, task: "", attempt: "", logTail: "" };
  endJob(state, job, { state: "failed", error }, event, out);
}

export function trouble(state: State, event: Of<"trouble">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job === undefined || job.stage.kind === "ended") return;
  const { message } = event;
  job.lastError = { class: "infra", message, task: "", attempt: "", logTail: "" };
  out.push({ kind: "changed", job: event.job });
}

export function published(state: State, event: Of<"published">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job?.stage.kind !== "committing") return;
  endJob(state, job, { state: "succeeded" }, event, out);
}
