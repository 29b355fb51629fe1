import { type JobId, parseTaskId, taskId } from "../model/ids.ts";
import type { JobError } from "../model/job.ts";
import { key, type ReportRecord } from "../model/records.ts";
import { planOf } from "./assignment.ts";
import { forgetEarlyReduces } from "./early_reduces.ts";
import type { Command, Event, SweepScope } from "./events.ts";
import { revoke } from "./leases.ts";
import { turnsOf } from "./owners.ts";
import { deleteKeys, put } from "./record_writes.ts";
import { type Job, newJob, type State, stateOf } from "./state.ts";
import { isKeptStep, withSteps } from "./steps.ts";
import { reportOf, viewTasks } from "./views.ts";

type At = Pick<Event, "atMs" | "wallMs">;

export function endJob(
  state: State,
  job: Job,
  end: { state: ReportRecord["state"]; error?: JobError },
  at: At,
  out: Command[],
): void {
  const report = reportOf(state, job, end.state, end.error, at.wallMs);
  const leftover = keysOf(job);
  out.push(put(key.report(job.record.id), report));
  job.stage = { kind: "ended", report, cleanup: "draining", leftover };
  state.vacancy = true;
  for (const phase of [job.map, job.reduce])
    for (const task of phase.tasks)
      for (const id of task.attempts) revoke(state, id, `the job was ended as ${end.state}`, out);
  forgetEarlyReduces(state, job, out);
  out.push({ kind: "changed", job: job.record.id });
  if (job.record.pipeline !== undefined) state.endedSteps.push(job.record.id);
  sweepIfDrained(state, job.record.id, out);
}

/** S7. */
export function sweepIfDrained(state: State, id: JobId, out: Command[]): void {
  const job = state.jobs.get(id);
  if (job?.stage.kind !== "ended" || job.stage.cleanup !== "draining") return;
  for (const phase of [job.map, job.reduce])
    for (const task of phase.tasks) if (task.attempts.length > 0) return;
  job.stage.cleanup = "sweeping";
  sweep(state, job, out);
}

export function sweep(state: State, job: Job, out: Command[]): void {
  const what: SweepScope = { objects: scopeOf(job, state), logs: false };
  const tasks = viewTasks(state, job);
  const archive = tasks.length > 0 ? { tasks, plan: planOf(job) } : undefined;
  out.push({ kind: "sweep", job: job.record, what, ...(archive && { archive }) });
}

export function swept(
  state: State,
  { job: id, what }: Extract<Event, { kind: "swept" }>,
  out: Command[],
): void {
  const job = state.jobs.get(id);
  if (job?.stage.kind !== "ended") return;
  if (job.stage.cleanup === "expiring") {
    if (!what.logs) return; // A sweep of leftovers that began before.
    state.jobs.delete(id);
    deleteKeys([key.report(id)], out);
    return;
  }
  if (job.stage.cleanup !== "sweeping") return;
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
  if (job.stale !== undefined) keys.push(key.stale(id));
  if (job.cuts !== undefined) keys.push(key.cuts(id));
  for (let index = 0; index < job.planRecords; index += 1) keys.push(key.plan(id, index));
  for (const phase of [job.map, job.reduce])
    for (const task of phase.tasks) {
      const name = taskId(task.kind, task.index);
      if (task.state.kind === "done") keys.push(key.done(id, name));
      if (task.userFailures > 0) keys.push(key.fails(id, name));
      if (task.lostDigest !== undefined) keys.push(key.lost(id, name));
    }
  return keys;
}

/** Forgets ended jobs, with their steps, the oldest of whoever has most first; never one that a waiting job goes on from. */
export function expireJobs(state: State, wallMs: number, out: Command[]): void {
  const ended = [...state.jobs.values()].filter(
    (job) =>
      job.stage.kind === "ended" &&
      job.stage.cleanup === "done" &&
      (job.record.pipeline === undefined || !state.jobs.has(job.record.pipeline.id)),
  );
  const { endedJobsMax, endedAgeMaxMs } = state.config;
  let surplus = ended.length - endedJobsMax;
  const tooOld = (job: Job) =>
    job.stage.kind === "ended" && wallMs - job.stage.report.finishedAtMs > endedAgeMaxMs;
  if (surplus <= 0 && !ended.some(tooOld)) return;
  const read = new Set<string>();
  for (const job of state.jobs.values())
    if (job.stage.kind !== "ended") read.add(job.record.spec.from);
  for (const job of oldestOfMost(ended)) {
    if ((surplus <= 0 && !tooOld(job)) || read.has(job.record.id)) continue;
    surplus -= 1;
    for (const one of withSteps(state, job)) {
      if (one.stage.kind !== "ended" || one.stage.cleanup !== "done") continue;
      one.stage.cleanup = "expiring";
      const what: SweepScope = { objects: "all", logs: true };
      out.push({ kind: "sweep", job: one.record, what });
    }
  }
}

/** As many as other owners have keep what they have, however many one owner ends. */
function oldestOfMost(ended: Job[]): Job[] {
  const newestFirst = ended.toSorted((a, b) => b.record.order - a.record.order);
  const turns = turnsOf(newestFirst);
  return newestFirst.reverse().toSorted((a, b) => (turns.get(b) ?? 0) - (turns.get(a) ?? 0));
}

/** From time to time: what a worker has made after its job was swept must not stay. */
export function collectLeftovers(state: State, atMs: number, out: Command[]): void {
  state.collectAtMs ??= atMs + state.config.collectMs;
  if (atMs < state.collectAtMs) return;
  state.collectAtMs = atMs + state.config.collectMs;
  out.push({ kind: "collect" });
}

/**
 * Jobs of which there are objects in dfs-intermediate. Those of jobs that are not
 * known here are left alone: they may be another cluster's.
 */
export function sweepLeftovers(
  state: State,
  { maps, results, wallMs }: Extract<Event, { kind: "collected" }>,
  out: Command[],
): void {
  const { keepFailedMs } = state.config;
  for (const id of new Set([...maps, ...results])) {
    const job = state.jobs.get(id);
    if (job?.stage.kind !== "ended" || job.stage.cleanup !== "done" || isMapResult(job)) continue;
    if (failedInReduce(job) && wallMs - job.stage.report.finishedAtMs < keepFailedMs) continue;
    const isKept = isKeptStep(state, job);
    if (isKept && !maps.includes(id)) continue;
    const what: SweepScope = { objects: isKept ? "maps" : "all", logs: false };
    out.push({ kind: "sweep", job: job.record, what });
  }
}

/** A step's parts lie beside the map outputs that they were made of. */
function scopeOf(job: Job, { config }: State): SweepScope["objects"] {
  if (isMapResult(job) || (config.keepFailedMs > 0 && failedInReduce(job))) return "none";
  return job.record.pipeline !== undefined && stateOf(job) === "succeeded" ? "maps" : "all";
}

/** Its map outputs are what its reduce tasks can be run again on. */
function failedInReduce({ stage }: Job): boolean {
  if (stage.kind !== "ended" || stage.report.state !== "failed") return false;
  return parseTaskId(stage.report.error?.task ?? "")?.kind === "reduce";
}

/** The objects of a map phase that succeeded are its result, and stay until it expires. */
function isMapResult(job: Job): boolean {
  return stateOf(job) === "succeeded" && job.record.spec.phase === "map";
}
