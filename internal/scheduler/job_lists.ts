/**
 * Lists of what there is, in pages, and counts. Both are for whoever looks: a client with a
 * token sees the jobs that it could have asked for, and nothing of the others.
 */
import { type Caller, callerOf, needsOf } from "../model/access.ts";
import { isFinal, type JobView, type TaskView, type WorkerView } from "../model/job.ts";
import type { Counts, JobsQuery, Page, PageQuery, Viewer, WorkersQuery } from "../model/job_api.ts";
import { LIMIT } from "../model/limits.ts";
import { currentPhase, type Job, type State, stateOf } from "./state.ts";
import { stepsOf } from "./steps.ts";
import { viewJob, viewWorker, workerState } from "./views.ts";

/** @param items what begins where the page does. */
function pageOf<T>(
  items: Iterable<T>,
  limit: number,
  keyOf: (item: T) => string,
  weightOf: (item: T) => number = () => 0,
): Page<T> {
  const page: T[] = [];
  let next = "";
  let weight = 0;
  for (const item of items) {
    weight += weightOf(item);
    if (page.length > 0 && (page.length === limit || weight > WEIGHT_MAX))
      return { items: page, next };
    page.push(item);
    next = keyOf(item);
  }
  return { items: page, next: "" };
}

/** Steps of jobs in one page: an answer must fit one message. */
const WEIGHT_MAX = 2_000;

export function jobsPage(state: State, query: JobsQuery): Page<JobView> {
  const page = pageOf(
    jobsFrom(state, query),
    query.limit,
    ({ record }) => String(record.order),
    ({ record }) => record.spec.steps.length,
  );
  return { ...page, items: page.items.map((job) => brief(viewJob(state, job))) };
}

/** The newest first. A page begins below the order of the last job of the one before. */
function* jobsFrom(state: State, query: JobsQuery): Generator<Job> {
  const below = query.after === "" ? Number.POSITIVE_INFINITY : Number(query.after);
  const viewer = viewerOf(query.viewer);
  const jobs = [...state.jobs.values()].filter(
    ({ record }) => record.pipeline === undefined && record.order < below,
  );
  for (const job of jobs.toSorted((a, b) => b.record.order - a.record.order)) {
    if (query.active && job.stage.kind === "ended") continue;
    if (query.state !== undefined && stateShown(state, job) !== query.state) continue;
    if (!job.record.spec.name.includes(query.name)) continue;
    if (maySee(job, query.viewer, viewer)) yield job;
  }
}

function stateShown(state: State, job: Job) {
  return job.stage.kind === "steps" ? viewJob(state, job).state : stateOf(job);
}

function viewerOf(viewer: Viewer): Caller | undefined {
  return viewer && callerOf({ name: "", places: [...viewer] });
}

/** So many clients' answers are kept with a job. */
const ANSWERS_MAX = 64;

function maySee(job: Job, places: Viewer, viewer: Caller | undefined): boolean {
  if (places === undefined || viewer === undefined) return true;
  const who = places.join(",");
  job.seenBy ??= new Map();
  let answer = job.seenBy.get(who);
  if (answer === undefined) {
    const { spec, id } = job.record;
    answer = needsOf(spec, id).every((need) => viewer.may(need.right, need));
    if (job.seenBy.size >= ANSWERS_MAX) job.seenBy.clear();
    job.seenBy.set(who, answer);
  }
  return answer;
}

/** In a list of many: without what can be long. */
function brief(job: JobView): JobView {
  const { spec } = job;
  const listed = {
    ...spec,
    mapper: short(spec.mapper),
    reducer: short(spec.reducer),
    combiner: short(spec.combiner),
    data: someOf(spec.data).map(short),
    env: {},
    conf: {},
    files: [],
    steps: spec.steps.map((step) => ({
      ...step,
      mapper: short(step.mapper),
      reducer: short(step.reducer),
      combiner: "",
      env: {},
      conf: {},
      files: [],
    })),
  };
  const error = (of: JobView["error"]) => of && { ...of, message: short(of.message), logTail: "" };
  const { error: end, lastError } = job;
  const steps = job.steps.map((step) => ({ ...step, error: undefined }));
  return {
    ...job,
    spec: listed,
    error: error(end),
    lastError: error(lastError),
    counters: {},
    steps,
  };
}

const INPUTS_LISTED = 3;

function someOf(data: string[]): string[] {
  if (data.length <= INPUTS_LISTED) return data;
  return [...data.slice(0, INPUTS_LISTED), `... and ${data.length - INPUTS_LISTED} more`];
}

function short(text: string): string {
  return text.length <= LIMIT.listedChars ? text : `${text.slice(0, LIMIT.listedChars - 3)}...`;
}

/** No view is made for it: what each job has is added up. */
export function countAll(state: State, places: Viewer, atMs: number): Counts {
  const viewer = viewerOf(places);
  const counts: Counts = { jobs: {}, tasksOpen: 0, tasksRunning: 0, workers: {}, slots: 0 };
  for (const job of state.jobs.values()) {
    if (job.record.pipeline !== undefined || !maySee(job, places, viewer)) continue;
    const shown = job.stage.kind === "steps" ? (stepNow(state, job) ?? job) : job;
    const name = job.stage.kind === "steps" ? stateOfStep(shown) : stateOf(job);
    counts.jobs[name] = (counts.jobs[name] ?? 0) + 1;
    if (isFinal(name)) continue;
    const { open, running } = tasksOf(shown);
    counts.tasksOpen += open;
    counts.tasksRunning += Math.min(open, running);
  }
  for (const worker of state.workers.values()) {
    const name = workerState(worker, atMs);
    counts.workers[name] = (counts.workers[name] ?? 0) + 1;
    counts.slots += worker.info.slots;
  }
  return counts;
}

function stepNow(state: State, pipeline: Job): Job | undefined {
  return stepsOf(state, pipeline).findLast(({ stage }) => stage.kind !== "ended");
}

/** Between two steps none is running; the next one begins at once. */
function stateOfStep(step: Job) {
  const state = stateOf(step);
  return isFinal(state) || step.stage.kind === "steps" ? "planning" : state;
}

function tasksOf(job: Job): { open: number; running: number } {
  const phase = currentPhase(job);
  if (phase === undefined)
    // A job that has no plan yet will want somebody.
    return { open: job.stage.kind === "committing" ? 0 : 1, running: 0 };
  return { open: phase.tasks.length - phase.done, running: job.running };
}

/** @param tasks of one job, in order. */
export function tasksPage(tasks: TaskView[], { limit, after }: PageQuery): Page<TaskView> {
  const from = after === "" ? 0 : tasks.findIndex(({ id }) => id === after) + 1;
  return pageOf(tasks.slice(from), limit, ({ id }) => id);
}

/** Attempts of one worker that are listed. */
const ATTEMPTS_LISTED = 200;

export function workersPage(state: State, query: WorkersQuery, atMs: number): Page<WorkerView> {
  const viewer = viewerOf(query.viewer);
  const all = [...state.workers.values()].toSorted((a, b) => (a.info.id < b.info.id ? -1 : 1));
  const from = all.filter(({ info }) => info.id > query.after);
  const page = pageOf(from, query.limit, ({ info }) => info.id);
  const items = page.items.map((worker) => {
    const view = viewWorker(worker, atMs);
    const attempts = view.attempts.filter((id) => {
      const job = state.jobs.get(state.attempts.get(id)?.job ?? "");
      return viewer === undefined || (job !== undefined && maySee(job, query.viewer, viewer));
    });
    const where = viewer === undefined ? {} : { host: "", pid: 0 };
    return { ...view, ...where, attempts: attempts.slice(0, ATTEMPTS_LISTED) };
  });
  return { ...page, items };
}
