import type Router from "@koa/router";
import type Koa from "koa";
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { MrError } from "../model/errors.ts";
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
  router.get("/healthz", (ctx) => {
    ctx.body = { status: "ok", pid: process.pid };
  });
  router.get("/readyz", async (ctx) => {
    const workers = await jobs.workers();
    ctx.body = { status: "ready", workers: workers.length };
  });
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
    const open = known.flatMap((job) =>
      job.state === "map" ? job.map : job.state === "reduce" ? job.reduce : [],
    );
    waiting.set(open.reduce((sum, phase) => sum + phase.total - phase.done - phase.running, 0));
    ctx.type = registry.contentType;
    ctx.body = await registry.metrics();
  });
}
