import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { PassThrough, Readable } from "node:stream";
import type Router from "@koa/router";
import type { Context } from "koa";
import { decompress } from "../codec/decompress.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { isJobId, parseTaskId } from "../model/ids.ts";
import { isFinal, type JobView } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import { parseJobRequest } from "../model/job_request.ts";
import { LIMIT } from "../model/limits.ts";
import { CONTAINER, folderPrefix, joinName, locationOf } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { attemptLogName } from "../model/task.ts";
import { callerFor, maySee, mustUseAll, seenJob } from "./authentication.ts";
import { assignmentJson, jobJson, taskJson } from "./job_json.ts";
import { HttpError } from "./problem.ts";

export interface JobRoutesOptions {
  jobs: JobApi;
  store: ObjectStore;
}

const DRAINED_BYTES_MAX = 64 * 1024 * 1024;
/** A stream of progress says something at least this often, in milliseconds. */
const KEEPALIVE_MS = 15_000;

export function addJobRoutes(router: Router, { jobs, store }: JobRoutesOptions): void {
  router.post("/request", async (ctx) => {
    const spec = parseJobRequest(await readJson(ctx));
    const given = ctx.get("Idempotency-Key");
    if (given.length > 200)
      throw new HttpError(400, "an Idempotency-Key has at most 200 characters");
    // Without a key of the client's, one of ours makes a repeat after a leader change safe.
    const key = given === "" ? randomUUID() : given;
    mustUseAll(ctx, spec);
    if (spec.from !== "") await seenJob(ctx, jobs, spec.from);
    const { name } = callerFor(ctx);
    // Everybody has keys of his own: nobody meets another's job by them.
    const { job } = await jobs.submit(spec, name === "" ? key : `${name}/${key}`);
    ctx.set("Location", `/jobs/${job.id}`);
    if (prefersAsync(ctx)) {
      ctx.set("Preference-Applied", "respond-async");
      ctx.status = 202;
      ctx.body = jobJson(job);
      return;
    }
    await streamJob(ctx, jobs, job.id, "application/x-ndjson", (line) => `${line}\n`);
  });

  router.get("/jobs", async (ctx) => {
    ctx.body = { jobs: (await jobs.list(false)).filter((job) => maySee(ctx, job)).map(jobJson) };
  });
  router.get("/tasks", async (ctx) => {
    ctx.body = { jobs: (await jobs.list(true)).filter((job) => maySee(ctx, job)).map(jobJson) };
  });
  router.get("/jobs/:id", async (ctx) => {
    ctx.body = jobJson(await seenJob(ctx, jobs, jobOf(ctx)));
  });
  router.delete("/jobs/:id", async (ctx) => {
    const { id } = await seenJob(ctx, jobs, jobOf(ctx));
    ctx.body = jobJson(await jobs.cancel(id));
  });
  router.get("/jobs/:id/events", async (ctx) => {
    const { id } = await seenJob(ctx, jobs, jobOf(ctx));
    ctx.set("Cache-Control", "no-cache");
    await streamJob(ctx, jobs, id, "text/event-stream", (line) => `data: ${line}\n\n`);
  });
  router.get("/jobs/:id/tasks", async (ctx) => {
    const { id, steps } = await seenJob(ctx, jobs, jobOf(ctx));
    const own = steps.length === 0 ? (await jobs.tasks(id)).map(taskJson) : [];
    for (const step of steps)
      for (const task of await jobs.tasks(step.id))
        own.push({ ...taskJson(task), id: `${step.id}/${task.id}` });
    ctx.body = { tasks: own };
  });
  router.get("/jobs/:id/tasks/:task/attempts/:attempt/log", async (ctx) => {
    const { id = "", task = "", attempt = "" } = ctx.params as Record<string, string>;
    if (!isJobId(id) || parseTaskId(task) === undefined || !/^\d+-\d+$/.test(attempt))
      throw new MrError("not_found", "there is no such attempt");
    await seenJob(ctx, jobs, id);
    const name = attemptLogName(`${id}/${task}/${attempt}`);
    if ((await store.head(CONTAINER.logs, name)) === undefined)
      throw new MrError("not_found", `attempt ${attempt} of ${task} left no log`);
    ctx.type = "text/plain; charset=utf-8";
    ctx.body = Readable.from(store.read(CONTAINER.logs, name));
  });
  router.get("/jobs/:id/tasks/:task/attempts/:attempt/assignment", async (ctx) => {
    const { id = "", task = "", attempt = "" } = ctx.params as Record<string, string>;
    await seenJob(ctx, jobs, jobOf(ctx));
    ctx.body = assignmentJson(await jobs.assignment(`${id}/${task}/${attempt}`));
  });
  router.get("/jobs/:id/output", async (ctx) => {
    const job = await seenJob(ctx, jobs, jobOf(ctx));
    if (job.state !== "succeeded" || job.spec.phase === "map")
      throw new MrError(
        "conflict",
        job.spec.phase === "map"
          ? `job ${job.id} is a map phase: a request with "phase": "reduce" makes its output`
          : `job ${job.id} is ${job.state}; its output is there once it has succeeded`,
      );
    ctx.type = "application/octet-stream";
    ctx.body = Readable.from(outputOf(store, job));
  });
}

/** All parts, in order, decompressed where they are compressed. */
async function* outputOf(store: ObjectStore, job: JobView): AsyncIterable<Uint8Array> {
  const { container, prefix } = locationOf(job.output);
  const parts = joinName(folderPrefix(prefix), "part-");
  for await (const { name, etag } of store.list(container, parts))
    yield* decompress(name, store.read(container, name, { etag }));
}

function jobOf(ctx: Context): string {
  const { id = "" } = (ctx as { params?: Record<string, string> }).params ?? {};
  if (!isJobId(id)) throw new MrError("not_found", `there is no job ${id.slice(0, 100)}`);
  return id;
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

/**
 * Streams the job at every change until its final state. The job goes on if the
 * client leaves. The first line is awaited before the headers go out, so that a
 * failure is still a status.
 */
async function streamJob(
  ctx: Context,
  jobs: JobApi,
  id: string,
  type: string,
  frame: (line: string) => string,
): Promise<void> {
  const gone = new AbortController();
  ctx.res.on("close", () => gone.abort());
  const views = jobs.watch(id, gone.signal)[Symbol.asyncIterator]();
  const first = await views.next();
  if (first.done === true) throw new MrError("unavailable", "the job cannot be watched just now");
  const body = new PassThrough();
  ctx.status = 200;
  ctx.type = type;
  ctx.set("X-Accel-Buffering", "no");
  ctx.body = body;
  ctx.flushHeaders();
  void pumpViews(body, first.value, views, frame, gone.signal);
}

async function pumpViews(
  body: PassThrough,
  first: JobView,
  views: AsyncIterator<JobView>,
  frame: (line: string) => string,
  gone: AbortSignal,
): Promise<void> {
  let last = first;
  const say = async () => {
    // A client that does not read must not fill our memory: it gets the newest when it does.
    while (body.writableNeedDrain && !gone.aborted)
      await once(body, "drain", { signal: gone }).catch(() => undefined);
    if (!body.writableEnded) body.write(frame(JSON.stringify(jobJson(last))));
  };
  const timer = setInterval(() => body.writableNeedDrain || void say(), KEEPALIVE_MS);
  try {
    await say();
    while (!isFinal(last.state) && !gone.aborted) {
      const next = await views.next();
      if (next.done === true) break;
      last = next.value;
      await say();
      timer.refresh();
    }
  } catch {
    // Nobody could be asked for long: the client sees a stream without a final state, and asks again.
  } finally {
    clearInterval(timer);
    body.end();
    await views.return?.();
  }
}
