import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import type { Context } from "koa";
import type { Caller } from "../model/access.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { parseTaskId } from "../model/ids.ts";
import type { JobView, TaskView } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import { parseJobRequest } from "../model/job_request.ts";
import { LIMIT } from "../model/limits.ts";
import { CONTAINER } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { attemptLogName } from "../model/task.ts";
import {
  KNOWN,
  mustRun,
  ofJob,
  ofOwn,
  ofResult,
  parameter,
  seenJob,
  withCaller,
} from "./authorisation.ts";
import { FollowedJobs } from "./followed_jobs.ts";
import { assignmentJson, jobJson, taskJson } from "./job_json.ts";
import { resultOf } from "./job_output.ts";
import { EVENTS, LINES, streamJob } from "./job_stream.ts";
import { nextPage, pageIn, stateIn, textIn } from "./paging.ts";
import { HttpError } from "./problem.ts";
import type { Routes } from "./routes.ts";
import type { Shares } from "./shares.ts";

export interface JobRoutesOptions {
  jobs: JobApi;
  store: ObjectStore;
  shares: Shares;
}

const DRAINED_BYTES_MAX = 64 * 1024 * 1024;

export function addJobRoutes(routes: Routes, { jobs, store, shares }: JobRoutesOptions): void {
  const JOB = ofJob(jobs);
  const followed = new FollowedJobs(jobs);
  routes.add("POST", "/request", KNOWN, async (ctx, caller) => {
    const spec = parseJobRequest(await readJson(ctx));
    mustRun(caller, spec);
    if (spec.from !== "") await seenJob(jobs, caller, spec.from);
    const isFollowed = !prefersAsync(ctx);
    if (isFollowed) shares.take(ctx, caller, "streams");
    const { job } = await jobs.submit(spec, keyIn(ctx, caller), caller.name);
    ctx.set("Location", `/jobs/${job.id}`);
    if (isFollowed) return streamJob(ctx, followed, job.id, LINES);
    ctx.set("Preference-Applied", "respond-async");
    ctx.status = 202;
    ctx.body = jobJson(job);
  });

  const list = async (ctx: Context, { places: viewer }: Caller, active: boolean) => {
    const state = stateIn(ctx);
    const query = { viewer, state, name: textIn(ctx, "name"), ...pageIn(ctx) };
    const { items, next } = await jobs.list({ ...query, active });
    ctx.body = { jobs: items.map(jobJson), ...nextPage(ctx, next) };
  };
  routes.add("GET", "/jobs", KNOWN, (ctx, caller) => list(ctx, caller, false));
  routes.add("GET", "/tasks", KNOWN, (ctx, caller) => list(ctx, caller, true));
  routes.add("GET", "/jobs/:id", JOB, (ctx, job) => {
    ctx.body = jobJson(job);
  });
  routes.add("DELETE", "/jobs/:id", ofOwn(jobs), async (ctx, { id }) => {
    ctx.body = jobJson(await jobs.cancel(id));
  });
  routes.add("GET", "/jobs/:id/events", withCaller(JOB), async (ctx, [{ id }, caller]) => {
    shares.take(ctx, caller, "streams");
    ctx.set("Cache-Control", "no-cache");
    await streamJob(ctx, followed, id, EVENTS);
  });
  routes.add("GET", "/jobs/:id/tasks", JOB, async (ctx, job) => {
    await listTasks(ctx, jobs, job);
  });
  routes.add("GET", "/jobs/:id/logs", withCaller(JOB), async (ctx, [{ id, steps }, caller]) => {
    shares.take(ctx, caller, "lists");
    ctx.body = { logs: await logsOf(store, [id, ...steps.map((step) => step.id)]) };
  });
  const ATTEMPT = "/jobs/:id/tasks/:task/attempts/:attempt";
  routes.add("GET", `${ATTEMPT}/log`, withCaller(JOB), async (ctx, [{ id }, caller]) => {
    shares.take(ctx, caller, "transfers");
    const [task, attempt] = [parameter(ctx, "task"), parameter(ctx, "attempt")];
    if (parseTaskId(task) === undefined || !/^\d+-\d+$/.test(attempt))
      throw new MrError("not_found", "there is no such attempt");
    const name = attemptLogName(`${id}/${task}/${attempt}`);
    if ((await store.head(CONTAINER.logs, name)) === undefined)
      throw new MrError("not_found", `attempt ${attempt} of ${task} left no log`);
    ctx.type = "text/plain; charset=utf-8";
    ctx.body = Readable.from(store.read(CONTAINER.logs, name));
  });
  routes.add("GET", `${ATTEMPT}/assignment`, withCaller(JOB), async (ctx, [{ id }, caller]) => {
    shares.take(ctx, caller, "lists");
    const name = `${id}/${parameter(ctx, "task")}/${parameter(ctx, "attempt")}`;
    ctx.body = assignmentJson(await jobs.assignment(name));
  });
  routes.add(
    "GET",
    "/jobs/:id/output",
    withCaller(ofResult(jobs, "read")),
    async (ctx, [job, caller]) => {
      shares.take(ctx, caller, "transfers");
      if (job.state !== "succeeded" || job.spec.phase === "map")
        throw new MrError(
          "conflict",
          job.spec.phase === "map"
            ? `job ${job.id} is a map phase: a request with "phase": "reduce" makes its output`
            : `job ${job.id} is ${job.state}; its output is there once it has succeeded`,
        );
      ctx.type = "application/octet-stream";
      ctx.body = Readable.from(await resultOf(store, job));
    },
  );
}

/** So many are named: who wants one asks for it. */
const LOGS_MAX = 10_000;

/** What the attempts of a job and of its steps have left. */
async function logsOf(store: ObjectStore, jobs: string[]): Promise<object[]> {
  const logs: object[] = [];
  if (!(await store.containerExists(CONTAINER.logs))) return logs;
  for (const job of jobs)
    for await (const { name, size } of store.list(CONTAINER.logs, `${job}/`)) {
      const [, task, attempt] = /^[^/]+\/([^/]+)\/([^/]+)\.log$/.exec(name) ?? [];
      if (task !== undefined) logs.push({ job, task, attempt, size });
      if (logs.length === LOGS_MAX) return logs;
    }
  return logs;
}

/** Everybody has keys of his own: nobody meets another's job by them. */
function keyIn(ctx: Context, { name }: Caller): string {
  const given = ctx.get("Idempotency-Key");
  if (given.length > 200) throw new HttpError(400, "an Idempotency-Key has at most 200 characters");
  // Without a key of the client's, one of ours makes a repeat after a leader change safe.
  const key = given === "" ? randomUUID() : given;
  return name === "" ? key : `${name}/${key}`;
}

/** Of a job with steps, those of all of them, each by the step's name and its own. */
async function listTasks(ctx: Context, jobs: JobApi, { id, steps }: JobView): Promise<void> {
  const page = pageIn(ctx);
  if (steps.length === 0) {
    const { items, next } = await jobs.tasks(id, page);
    ctx.body = { tasks: items.map(taskJson), ...nextPage(ctx, next) };
    return;
  }
  const slash = page.after.indexOf("/");
  const [step, task] = [page.after.slice(0, Math.max(0, slash)), page.after.slice(slash + 1)];
  const from = Math.max(
    0,
    steps.findIndex((one) => one.id === step),
  );
  const tasks: (TaskView & { step: string })[] = [];
  let next = "";
  for (const one of steps.slice(from)) {
    if (tasks.length === page.limit) {
      next = `${tasks.at(-1)?.step}/${tasks.at(-1)?.id}`;
      break;
    }
    const after = one.id === step ? task : "";
    const part = await jobs.tasks(one.id, { limit: page.limit - tasks.length, after });
    tasks.push(...part.items.map((each) => ({ ...each, step: one.id })));
    if (part.next !== "") next = `${one.id}/${part.next}`;
    if (next !== "") break;
  }
  ctx.body = {
    tasks: tasks.map((each) => ({ ...taskJson(each), id: `${each.step}/${each.id}` })),
    ...nextPage(ctx, next),
  };
}

function prefersAsync(ctx: Context): boolean {
  return ctx
    .get("Prefer")
    .split(",")
    .some((preference) => preference.trim().toLowerCase().startsWith("respond-async"));
}

/** The request's body as JSON, of bounded size. */
async function readJson(ctx: Context): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of ctx.req as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= LIMIT.bodyBytes) chunks.push(chunk);
    // Read to its end, so that a client that is still sending gets the answer; within reason.
    if (size > DRAINED_BYTES_MAX) break;
  }
  if (size > LIMIT.bodyBytes) {
    if (size > DRAINED_BYTES_MAX) ctx.set("Connection", "close");
    throw new HttpError(413, `the body is larger than ${LIMIT.bodyBytes} bytes`);
  }
  if (size === 0) throw new HttpError(400, 'the body is empty; send JSON: {"mapper": ...}');
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
    return JSON.parse(text);
  } catch (error) {
    throw new HttpError(400, `the body is not JSON: ${messageOf(error)}`);
  }
}
