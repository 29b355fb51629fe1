import type Koa from "koa";
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { JOB_STATES } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import { OPERATOR } from "./authorisation.ts";
import type { Routes } from "./routes.ts";

/** Counts requests, and answers /metrics in the Prometheus text format. */
export function addMetrics(app: Koa, routes: Routes, jobs: JobApi): void {
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
    requests.inc({ method: METHODS.has(ctx.method) ? ctx.method : "other", status: ctx.status });
  });
  routes.add("GET", "/metrics", OPERATOR, async (ctx) => {
    const counts = await jobs.count(undefined);
    jobStates.reset();
    for (const state of JOB_STATES) jobStates.set({ state }, counts.jobs[state] ?? 0);
    workerStates.reset();
    for (const [state, count] of Object.entries(counts.workers)) workerStates.set({ state }, count);
    slots.set(counts.slots);
    open.set(counts.tasksOpen);
    waiting.set(counts.tasksOpen - counts.tasksRunning);
    ctx.type = registry.contentType;
    ctx.body = await registry.metrics();
  });
}

/** Each gets lines of its own: those that clients make up do not. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]);
