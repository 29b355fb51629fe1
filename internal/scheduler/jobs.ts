import { COMMIT_RECORDS_MAX, type RecordWrite } from "../model/coordinator.ts";
import { MrError } from "../model/errors.ts";
import { type JobId, taskId } from "../model/ids.ts";
import { isFinal, type JobError } from "../model/job.ts";
import { joinName, locationOf } from "../model/names.ts";
import { type DoneRecord, type JobRecord, key, type ReportRecord } from "../model/records.ts";
import { MAP_MANIFEST, type Receipt, type Segments } from "../model/task.ts";
import { recordDone, revoke } from "./attempts.ts";
import type { Command, Event, Marker, Plan } from "./events.ts";

import {
  currentPhase,
  type Job,
  newJob,
  newPhase,
  outputOf,
  type Phase,
  type State,
  stateOf,
} from "./state.ts";
import { reportOf, viewJob, viewTasks } from "./views.ts";

type Of<K extends Event["kind"]> = Extract<Event, { kind: K }>;
type At = Pick<Event, "atMs" | "wallMs">;

export function submitJob(state: State, event: Of<"submit">, out: Command[]): void {
  const refuse = (error: MrError) =>
    out.push({ kind: "reply", to: event.reply, answer: { kind: "error", error } });
  const known = findByKey(state, event.idempotencyKey);
  if (known !== undefined) {
    if (JSON.stringify(known.record.spec) !== JSON.stringify(withFrom(event.spec, known)))
      return void refuse(
        new MrError("conflict", "the Idempotency-Key was used for a different request"),
      );
    const job = viewJob(state, known);
    const answer = { kind: "submitted" as const, job, repeated: true };
    return void out.push({ kind: "reply", to: event.reply, answer });
  }
  const open = [...state.jobs.values()].filter((job) => job.stage.kind !== "ended");
  if (open.length >= state.config.queuedJobsMax)
    return void refuse(
      new MrError("too_many", `${open.length} jobs are waiting or running; try later`),
    );
  const spec = event.spec.phase === "reduce" ? resolveFrom(state, event.spec) : event.spec;
  if (spec instanceof MrError) return void refuse(spec);
  const record: JobRecord = {
    id: event.id,
    spec,
    submittedAtMs: event.wallMs,
    order: state.order + 1,
    idempotencyKey: event.idempotencyKey,
  };
  const output = outputOf(record);
  if (open.some((job) => outputOf(job.record) === output))
    return void refuse(new MrError("conflict", `output: another job writes to ${output}`));
  state.order = record.order;
  const job = newJob(record);
  state.jobs.set(record.id, job);
  out.push(put(key.spec(record.id), record));
  const answer = { kind: "submitted" as const, job: viewJob(state, job), repeated: false };
  out.push({ kind: "reply", to: event.reply, answer });
}

function findByKey(state: State, idempotencyKey: string): Job | undefined {
  if (idempotencyKey === "") return undefined;
  for (const job of state.jobs.values())
    if (job.record.idempotencyKey === idempotencyKey) return job;
  return undefined;
}

/** The job's `from` may have been chosen for it; a repeat did not name it either. */
function withFrom(spec: JobRecord["spec"], known: Job): JobRecord["spec"] {
  return spec.phase === "reduce" && spec.from === ""
    ? { ...spec, from: known.record.spec.from }
    : spec;
}

/** Finds the map phase that a reduce phase reads. */
function resolveFrom(state: State, spec: JobRecord["spec"]): JobRecord["spec"] | MrError {
  if (spec.from !== "") {
    const job = state.jobs.get(spec.from);
    if (job === undefined || job.record.spec.phase !== "map" || stateOf(job) !== "succeeded")
      return new MrError("invalid", `from: ${spec.from} is not a finished map phase`, {
        violations: [{ field: "from", message: "not the id of a finished map phase" }],
      });
    if (job.record.spec.r_num !== spec.r_num)
      return new MrError("invalid", `r_num: job ${spec.from} was made for another r_num`, {
        violations: [
          { field: "r_num", message: `the map phase was made for ${job.record.spec.r_num}` },
        ],
      });
    return spec;
  }
  const jobs = [...state.jobs.values()].filter(
    (job) =>
      job.record.spec.phase === "map" &&
      stateOf(job) === "succeeded" &&
      job.record.spec.mapper === spec.mapper &&
      job.record.spec.data === spec.data &&
      job.record.spec.r_num === spec.r_num,
  );
  const newest = jobs.toSorted((a, b) => b.record.order - a.record.order)[0];
  if (newest !== undefined) return { ...spec, from: newest.record.id };
  const message = `no finished map phase of ${spec.mapper} over ${spec.data} with r_num ${spec.r_num}`;
  return new MrError("invalid", message, { violations: [{ field: "phase", message }] });
}

export function startQueued(state: State, out: Command[]): void {
  let active = 0;
  const queued: Job[] = [];
  for (const job of state.jobs.values()) {
    if (job.stage.kind === "queued") queued.push(job);
    else if (job.stage.kind !== "ended") active += 1;
  }
  for (const job of queued.slice(0, Math.max(0, state.config.activeJobsMax - active))) {
    job.stage = { kind: "planning" };
    out.push({ kind: "plan", job: job.record });
    out.push({ kind: "changed", job: job.record.id });
  }
}

export function planned(state: State, event: Of<"planned">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job === undefined || job.stage.kind !== "planning") return;
  const maps = event.plan.kind === "splits" ? event.plan.splits.length : event.plan.done.length;
  job.map = newPhase("map", maps);
  job.reduce = newPhase("reduce", job.record.spec.r_num);
  job.startedAtMs = event.wallMs;
  putPlan(job, event.plan, out);
  const record = { maps, bytes: job.splitBytes, startedAtMs: job.startedAtMs };
  out.push(put(key.planned(event.job), record));
  job.stage = { kind: "map" };
  queueAll(job.map);
  out.push({ kind: "changed", job: event.job });
  advance(state, job, event, out);
}

export const RANGES_PER_RECORD = 500;

/** Each put stands alone (not atomic with the others): they count only once `planned` is there. */
function putPlan(job: Job, plan: Plan, out: Command[]): void {
  const { id } = job.record;
  if (plan.kind === "done") {
    plan.done.forEach((done, index) => {
      out.push(put(key.done(id, taskId("map", index)), done));
      const task = job.map.tasks[index];
      if (task !== undefined) recordDone(job, job.map, task, done);
    });
    return;
  }
  job.splits = plan.splits;
  for (const range of plan.splits.flat()) job.splitBytes += range.length;
  plan.splits.forEach((split, index) => {
    const chunks = Math.max(1, Math.ceil(split.length / RANGES_PER_RECORD));
    for (let chunk = 0; chunk < chunks; chunk += 1) {
      const ranges = split.slice(chunk * RANGES_PER_RECORD, (chunk + 1) * RANGES_PER_RECORD);
      out.push(put(key.split(id, taskId("map", index), chunk), { chunks, ranges }));
    }
  });
}

export function queueAll(phase: Phase): void {
  for (const task of phase.tasks)
    if (task.state.kind === "pending") phase.ready.push(task.index);
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
    job.stage = { kind: "reduce" };
    job.held = false; // Nobody can be running a reduce task yet.
    job.sources = segmentsOf(job);
    queueAll(job.reduce);
    advance(state, job, at, out);
    return;
  }
  job.stage = { kind: "committing" };
  out.push(put(key.committing(job.record.id), {}));
  publish(job, out);
}

export function segmentsOf(job: Job): Segments[] {
  return winners(job.map).flatMap((done) => (done.output.kind === "segments" ? done.output : []));
}

function winners(phase: Phase): DoneRecord[] {
  return phase.tasks.flatMap((task) => (task.state.kind === "done" ? task.state.done : []));
}

/** Any later leader may say the same again: it follows from the records alone. */
export function publish(job: Job, out: Command[]): void {
  const results = job.reduce.tasks.length > 0 ? job.reduce : job.map;
  const receipts: Receipt[] = winners(results).flatMap((done) =>
    done.output.kind === "part" ? done.output.receipt : [],
  );
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

export function published(state: State, event: Of<"published">, out: Command[]): void {
  const job = state.jobs.get(event.job);
  if (job?.stage.kind !== "committing") return;
  endJob(state, job, { state: "succeeded" }, event, out);
}

export function cancelJob(state: State, event: Of<"cancel">, out: Command[]): void {
  const job = state.jobs.get(event.id);
  const reply = (answer: Extract<Command, { kind: "reply" }>["answer"]) =>
    out.push({ kind: "reply", to: event.reply, answer });
  if (job === undefined)
    return void reply({ kind: "error", error: new MrError("not_found", `no job ${event.id}`) });
  // S5: what is being published is past its point of no return.
  if (job.stage.kind === "committing" || stateOf(job) === "succeeded" || stateOf(job) === "failed")
    return void reply({
      kind: "error",
      error: new MrError("conflict", `job ${event.id} is ${stateOf(job)}; it cannot be cancelled`),
    });
  if (!isFinal(stateOf(job))) endJob(state, job, { state: "cancelled" }, event, out);
  reply({ kind: "job", job: viewJob(state, job) });
}

export function endJob(
  state: State,
  job: Job,
  end: { state: ReportRecord["state"]; error?: JobError },
  at: At,
  out: Command[],
): void {
  const report = reportOf(state, job, end.state, end.error, at.wallMs);
  const tasks = viewTasks(state, job);
  const leftover = keysOf(job);
  out.push(put(key.report(job.record.id), report));
  job.stage = { kind: "ended", report, cleanup: "draining", leftover };
  if (tasks.length > 0) out.push({ kind: "archive", job: job.record.id, tasks });
  for (const phase of [job.map, job.reduce])
    for (const task of phase.tasks)
      for (const id of [...task.attempts]) revoke(state, id, `the job was ended as ${end.state}`, out);
  out.push({ kind: "changed", job: job.record.id });
  sweepIfDrained(state, job.record.id, out);
}

/** S7. The map phase's objects are its result and stay. */
export function sweepIfDrained(state: State, id: JobId, out: Command[]): void {
  const job = state.jobs.get(id);
  if (job?.stage.kind !== "ended" || job.stage.cleanup !== "draining") return;
  for (const phase of [job.map, job.reduce])
    for (const task of phase.tasks) if (task.attempts.size > 0) return;
  job.stage.cleanup = "sweeping";
  sweep(job, out);
}

export function sweep(job: Job, out: Command[]): void {
  const succeeded = stateOf(job) === "succeeded";
  out.push({
    kind: "sweep",
    job: job.record,
    output: !succeeded,
    intermediate: !(succeeded && job.record.spec.phase === "map"),
    logs: false,
  });
}

export function swept(state: State, id: JobId, out: Command[]): void {
  const job = state.jobs.get(id);
  if (job?.stage.kind !== "ended" || job.stage.cleanup !== "sweeping") return;
  deleteKeys(job.stage.leftover, out);
  state.jobs.set(id, { ...newJob(job.record), stage: endedStage(job.stage.report) });
}

function endedStage(report: ReportRecord): Job["stage"] {
  return { kind: "ended", report, cleanup: "done", leftover: [] };
}

/** Every key a job may have besides its report. */
function keysOf(job: Job): string[] {
  const { id } = job.record;
  const keys = [key.spec(id), key.planned(id), key.committing(id)];
  job.splits.forEach((split, index) => {
    const chunks = Math.max(1, Math.ceil(split.length / RANGES_PER_RECORD));
    for (let chunk = 0; chunk < chunks; chunk += 1)
      keys.push(key.split(id, taskId("map", index), chunk));
  });
  for (const phase of [job.map, job.reduce])
    for (const task of phase.tasks) {
      const name = taskId(task.kind, task.index);
      if (task.state.kind === "done") keys.push(key.done(id, name));
      if (task.userFailures > 0) keys.push(key.fails(id, name));
    }
  return keys;
}

function deleteKeys(keys: string[], out: Command[]): void {
  for (let from = 0; from < keys.length; from += COMMIT_RECORDS_MAX) {
    const writes: RecordWrite[] = keys
      .slice(from, from + COMMIT_RECORDS_MAX)
      .map((name) => ({ key: name, value: undefined }));
    out.push({ kind: "put", writes });
  }
}

/** Forgets the oldest ended jobs, never one that a waiting reduce phase reads. */
export function expireJobs(state: State, wallMs: number, out: Command[]): void {
  const ended = [...state.jobs.values()].filter(
    (job) => job.stage.kind === "ended" && job.stage.cleanup === "done",
  );
  const { endedJobsMax, endedAgeMaxMs } = state.config;
  let surplus = ended.length - endedJobsMax;
  const tooOld = (job: Job) =>
    job.stage.kind === "ended" && wallMs - job.stage.report.finishedAtMs > endedAgeMaxMs;
  if (surplus <= 0 && !ended.some(tooOld)) return;
  const read = new Set<string>();
  for (const job of state.jobs.values())
    if (job.stage.kind !== "ended") read.add(job.record.spec.from);
  for (const job of ended.toSorted((a, b) => a.record.order - b.record.order)) {
    if ((surplus <= 0 && !tooOld(job)) || read.has(job.record.id)) continue;
    surplus -= 1;
    state.jobs.delete(job.record.id);
    deleteKeys([key.report(job.record.id)], out);
    out.push({ kind: "sweep", job: job.record, output: false, intermediate: true, logs: true });
  }
}

function put(name: string, value: object): Command {
  return { kind: "put", writes: [{ key: name, value: JSON.stringify(value) }] };
}
