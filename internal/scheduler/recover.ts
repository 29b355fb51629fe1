import { MrError, messageOf } from "../model/errors.ts";
import { type JobId, parseTaskId } from "../model/ids.ts";
import {
  type CutsRecord,
  type DoneRecord,
  decodeRecord,
  type FailsRecord,
  type JobRecord,
  key,
  type LostRecord,
  type PlannedRecord,
  type PlanRecord,
  type ReportRecord,
  type StaleRecord,
  salvagedRecord,
} from "../model/records.ts";
import type { Command } from "./events.ts";
import { endJob, sweep } from "./job_end.ts";
import { beginCommit, cut, mustCut, publish, release } from "./job_stages.ts";
import { recordDone } from "./leases.ts";
import { continuePipeline } from "./pipeline.ts";
import { splitsOf } from "./plan_records.ts";
import { deleteKeys } from "./record_writes.ts";
import {
  type Job,
  newJob,
  newPhase,
  newState,
  type SchedulerConfig,
  type State,
  segmentsOf,
  type Worker,
} from "./state.ts";
import { isPipeline, stepsOf } from "./steps.ts";
import { reportOf } from "./views.ts";
import { newWorker } from "./workers.ts";

/** The records of one job, sorted out by kind. */
interface Stored {
  keys: string[];
  spec?: JobRecord;
  planned?: PlannedRecord;
  committing: boolean;
  report?: ReportRecord;
  plan: PlanRecord[];
  done: Map<string, DoneRecord>;
  fails: Map<string, FailsRecord>;
  lost: Map<string, LostRecord>;
  stale?: StaleRecord;
  cuts?: CutsRecord;
  /** Of its `spec` or its `report`, which cannot be read. */
  salvaged?: JobRecord;
  /** The report is there, and cannot be read. */
  isEnded: boolean;
  fault?: string;
}

/**
 * Builds the state of a new leader from what its predecessors recorded, and the
 * commands with which it takes up unfinished business. A record that cannot be
 * read fails its job, not the leader.
 */
export class Recovery {
  private readonly jobs = new Map<JobId, Stored>();
  private readonly workers: Worker["info"][] = [];
  private readonly texts = new Texts();

  /** Each record as it comes: nobody needs room for all of them as text. */
  read({ key, value }: { key: string; value: string }): void {
    if (key.startsWith("job/")) readJobRecord(this.jobs, this.texts, key, value);
    if (!key.startsWith("worker/")) return;
    try {
      this.workers.push(decodeRecord("worker", key, value));
    } catch {
      // Whoever it was will say hello again.
    }
  }

  /** Once all have been read. */
  finish(
    config: SchedulerConfig,
    epoch: number,
    at: { atMs: number; wallMs: number },
  ): { state: State; commands: Command[] } {
    const state = newState(config, epoch);
    for (const info of this.workers) expectWorker(state, info, at.atMs);
    return { state, commands: takeUp(state, this.jobs, at) };
  }
}

/** From records that are all there. */
export function recover(
  config: SchedulerConfig,
  epoch: number,
  records: Iterable<{ key: string; value: string }>,
  at: { atMs: number; wallMs: number },
): { state: State; commands: Command[] } {
  const recovery = new Recovery();
  for (const record of records) recovery.read(record);
  return recovery.finish(config, epoch, at);
}

function takeUp(
  state: State,
  stored: Map<JobId, Stored>,
  at: { atMs: number; wallMs: number },
): Command[] {
  const out: Command[] = [];
  const ordered = [...stored.entries()].toSorted(([, a], [, b]) => orderOf(a) - orderOf(b));
  for (const [, job] of ordered) recoverJob(state, job, at, out);
  state.endedSteps = [];
  for (const job of [...state.jobs.values()])
    if (isPipeline(job) && job.stage.kind !== "ended" && stepsOf(state, job).length > 0)
      continuePipeline(state, job, at, out);
  // Nobody can be running anything: no reason to wait.
  if (state.hold === undefined) for (const job of state.jobs.values()) release(state, job);
  return out;
}

function orderOf({ report, spec, salvaged }: Stored): number {
  return (report?.record ?? spec ?? salvaged)?.order ?? 0;
}

function expectWorker(state: State, info: Worker["info"], atMs: number): void {
  state.workers.set(info.id, { ...newWorker(info), inherited: true });
  state.hold ??= { untilMs: atMs + state.config.leaseMs, expected: new Set() };
  state.hold.expected.add(info.id);
}

/** What many records say alike is kept once. */
class Texts {
  private readonly known = new Map<string, string>();

  same(text: string): string {
    const known = this.known.get(text);
    if (known === undefined) this.known.set(text, text);
    return known ?? text;
  }

  ofDone(done: DoneRecord): DoneRecord {
    done.worker = this.same(done.worker);
    return done;
  }

  ofPlan(plan: PlanRecord): PlanRecord {
    for (const split of plan.splits)
      for (const range of split) {
        range.container = this.same(range.container);
        range.name = this.same(range.name);
        range.etag = this.same(range.etag);
      }
    return plan;
  }
}

function readJobRecord(all: Map<JobId, Stored>, texts: Texts, key: string, value: string): void {
  const [, id = "", kind = "", of = ""] = key.split("/");
  let job = all.get(id);
  if (job === undefined) {
    job = {
      keys: [],
      committing: false,
      isEnded: false,
      plan: [],
      done: new Map(),
      fails: new Map(),
      lost: new Map(),
    };
    all.set(id, job);
  }
  if (kind !== "report") job.keys.push(key);
  try {
    if (kind === "spec") job.spec = decodeRecord("spec", key, value);
    else if (kind === "planned") job.planned = decodeRecord("planned", key, value);
    else if (kind === "committing") job.committing = true;
    else if (kind === "report") job.report = decodeRecord("report", key, value);
    else if (kind === "done") job.done.set(of, texts.ofDone(decodeRecord("done", key, value)));
    else if (kind === "fails") job.fails.set(of, decodeRecord("fails", key, value));
    else if (kind === "lost") job.lost.set(of, decodeRecord("lost", key, value));
    else if (kind === "stale") job.stale = decodeRecord("stale", key, value);
    else if (kind === "cuts") job.cuts = decodeRecord("cuts", key, value);
    else if (kind === "plan") job.plan[Number(of)] = texts.ofPlan(decodeRecord("plan", key, value));
    else throw new MrError("corrupt", `stored record ${key} is of no known kind`);
  } catch (error) {
    job.fault ??= messageOf(error);
    if (kind !== "spec" && kind !== "report") return;
    job.salvaged ??= salvagedRecord(id, value);
    job.isEnded ||= kind === "report";
  }
}

function recoverJob(
  state: State,
  stored: Stored,
  at: { atMs: number; wallMs: number },
  out: Command[],
): void {
  const record = stored.report?.record ?? stored.spec ?? stored.salvaged;
  if (record === undefined) return; // Nobody was told of a job without a spec.
  const job = newJob(record);
  state.jobs.set(record.id, job);
  state.order = Math.max(state.order, record.order);
  if (stored.report !== undefined) return recoverEnded(state, job, stored.report, stored.keys, out);
  if (stored.isEnded) return recoverUnread(state, job, stored.fault ?? "", at);
  const fault = stored.fault ?? recoverTasks(job, stored);
  if (fault !== undefined) {
    const error = { class: "internal", message: fault, task: "", attempt: "", logTail: "" };
    endJob(state, job, { state: "failed", error }, at, out);
    if (job.stage.kind === "ended") job.stage.leftover = stored.keys;
  } else if (stored.committing) {
    job.stage = { kind: "committing" };
    publish(job, out);
  } else if (stored.planned !== undefined) {
    recoverStage(job, out);
  } else {
    // What a plan that was not finished has left: the next one may take fewer records.
    deleteKeys(
      stored.keys.filter((name) => name !== key.spec(record.id)),
      out,
    );
  }
}

/** It has ended as its report says, which somebody can read: it is shown as failed, and left as it is. */
function recoverUnread(state: State, job: Job, message: string, at: { wallMs: number }): void {
  const error = { class: "internal", message, task: "", attempt: "", logTail: "" };
  const report = reportOf(state, job, "failed", error, at.wallMs);
  job.stage = { kind: "ended", report, cleanup: "done", leftover: [] };
}

function recoverEnded(
  state: State,
  job: Job,
  report: ReportRecord,
  leftover: string[],
  out: Command[],
): void {
  const cleanup = leftover.length > 0 ? "sweeping" : "done";
  job.stage = { kind: "ended", report, cleanup, leftover };
  if (cleanup === "sweeping") sweep(state, job, out);
}

/** The stage follows from what is done; only `committing` is a decision of its own. */
function recoverStage(job: Job, out: Command[]): void {
  job.stage = { kind: "map" };
  job.held = true;
  if (job.map.done < job.map.tasks.length) return;
  if (job.reduce.tasks.length > 0 && job.record.spec.phase !== "map") {
    if (mustCut(job)) return cut(job, out);
    job.stage = { kind: "reduce" };
    job.sources = segmentsOf(job);
    if (job.reduce.done < job.reduce.tasks.length) return;
  }
  // Its last task was recorded, its `committing` was not.
  beginCommit(job, out);
}

function recoverTasks(job: Job, stored: Stored): string | undefined {
  const { planned } = stored;
  if (planned === undefined) return undefined;
  job.startedAtMs = planned.startedAtMs;
  job.splitBytes = planned.bytes;
  job.map = newPhase("map", planned.maps);
  job.reduce = newPhase("reduce", job.record.spec.r_num);
  if (job.record.spec.phase !== "reduce") {
    const splits = splitsOf(stored.plan, planned);
    if (splits === undefined) return "its plan is not whole";
    job.splits = splits;
    job.planRecords = planned.records;
  }
  for (const [name, done] of stored.done) {
    const task = taskOf(job, name);
    if (task === undefined) return `a result is recorded for ${name}, which is not planned`;
    recordDone(job, task.kind === "map" ? job.map : job.reduce, task, done);
  }
  for (const [name, fails] of stored.fails) {
    const task = taskOf(job, name);
    if (task === undefined) return `failures are recorded for ${name}, which is not planned`;
    task.userFailures = fails.user;
    task.infraFailures = fails.infra;
    task.firstError = fails.first;
    task.lastError = fails.last;
    job.attemptsFailed += fails.user;
  }
  for (const [name, { digest }] of stored.lost) {
    const task = taskOf(job, name);
    if (task === undefined) return `a loss is recorded for ${name}, which is not planned`;
    task.lostDigest = digest;
    task.infraFailures += 1;
  }
  job.stale = stored.stale;
  job.cuts = stored.cuts?.keys;
  return undefined;
}

function taskOf(job: Job, name: string) {
  const parsed = parseTaskId(name);
  if (parsed === undefined) return undefined;
  return (parsed.kind === "map" ? job.map : job.reduce).tasks[parsed.index];
}
