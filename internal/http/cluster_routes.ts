import type Router from "@koa/router";
import type Koa from "koa";
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { MrError } from "../model/errors.ts";
import { isFinal, type JobView, type PhaseProgress } from "../model/job.ts";
import type { JobApi, LeaderLocator } from "../model/job_api.ts";
import { workerJson } from "./job_json.ts";

export interface ClusterRoutesOptions {
  jobs: JobApi;
  locator: LeaderLocator;
}

export function addClusterRoutes(router: Router, { jobs, locator }: ClusterRoutesOptions): void {
  router.get("/leader", async (ctx) => {
    const leader = await locator.leader();
    if (leader === undefined) throw new MrError("unavailable", "there is no leader just now");
    ctx.body = leader;
  });
  router.get("/workers", async (ctx) => {
    ctx.body = { workers: (await jobs.workers()).map(workerJson) };
  });
  router.get("/queue", async (ctx) => {
    ctx.body = queueOf(await jobs.list(true));
  });
  router.get("/healthz", (ctx) => {
    ctx.body = { status: "ok", pid: process.pid };
  });
  router.get("/readyz", async (ctx) => {
    const workers = await jobs.workers();
    ctx.body = { status: "ready", workers: workers.length };
  });
}

/** What there is to do, for whoever decides how many workers there should be. */
function queueOf(jobs: JobView[]): { tasks: number; running: number; jobs: number } {
  const queue = { tasks: 0, running: 0, jobs: jobs.length };
  for (const job of jobs) {
    // A job that has no plan yet will want somebody.
    const { total, done, running } = currentPhase(job) ?? { total: 1, done: 0, running: 0 };
    queue.tasks += total - done;
    queue.running += running;
  }
  return queue;
}

/** Of a job with steps, that of the step which runs. */
function currentPhase(job: JobView): PhaseProgress | undefined {
  const { state, map, reduce } = job.steps.find((step) => !isFinal(step.state)) ?? job;
  if (state === "map") return map;
  if (state === "reduce" || state === "committing") return reduce;
  return undefined;
}

/** Counts requests, and answers /metrics in the Prometheus text format. */
export function addMetrics(app: Koa, router: Router, jobs: JobApi): void {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const requests = new Counter({
    name: "mr_http_requests_total",
    help: "HTTP requests answered, by method and status",
    labelNames: ["method", "status"],
    registers: [registry],
  });
  const gauge = (name: string, help: string, labelNames: string[]) =>
    new Gauge({ name, help, labelNames, registers: [registry] });
  const jobStates = gauge("mr_jobs", "Jobs the leader remembers, by state", ["state"]);
  const workerStates = gauge("mr_workers", "Workers, by state", ["state"]);
  const slots = gauge("mr_slots", "Slots of all workers", []);
  const open = gauge("mr_tasks_open", "Tasks of jobs that are not done, waiting or running", []);
  const waiting = gauge("mr_tasks_waiting", "Tasks of running jobs that no worker has yet", []);
  app.use(async (ctx, next) => {
    await next();
    requests.inc({ method: ctx.method, status: ctx.status });
  });
  router.get("/metrics", async (ctx) => {
    const [known, workers] = await Promise.all([jobs.list(false), jobs.workers()]);
    jobStates.reset();
    for (const { state } of known) jobStates.inc({ state });
    workerStates.reset();
    for (const { state } of workers) workerStates.inc({ state });
    slots.set(workers.reduce((sum, worker) => sum + worker.slots, 0));
    const queue = queueOf(known.filter(({ state }) => !isFinal(state)));
    open.set(queue.tasks);
    waiting.set(queue.tasks - queue.running);
    ctx.type = registry.contentType;
    ctx.body = await registry.metrics();
  });
}
