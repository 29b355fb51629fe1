import { setTimeout as delay } from "node:timers/promises";
import { MrError } from "../model/errors.ts";
import type { JobApi, LeaderLocator } from "../model/job_api.ts";
import { KNOWN } from "./authorisation.ts";
import { workerJson } from "./job_json.ts";
import { nextPage, pageIn } from "./paging.ts";
import { OPEN, type Routes } from "./routes.ts";

export interface ClusterRoutesOptions {
  jobs: JobApi;
  locator: LeaderLocator;
  /** Whether the proxy takes new requests. */
  ready: () => boolean;
}

const ASK_MS = 1_000;

/** How many workers the leader has; asked by whoever likes, so not each time. */
class KnownWorkers {
  private readonly jobs: JobApi;
  private asked: { atMs: number; count: Promise<number | null> } | undefined;

  constructor(jobs: JobApi) {
    this.jobs = jobs;
  }

  /** null: nobody says so just now. */
  async workers(): Promise<number | null> {
    const nowMs = performance.now();
    if (this.asked === undefined || nowMs - this.asked.atMs > ASK_MS / 4)
      this.asked = { atMs: nowMs, count: this.ask() };
    const timer = delay(ASK_MS, null, { ref: false });
    return Promise.race([this.asked.count, timer]);
  }

  private async ask(): Promise<number | null> {
    try {
      const { workers } = await this.jobs.count(undefined);
      return Object.values(workers).reduce((sum, count) => sum + count, 0);
    } catch {
      return null;
    }
  }
}

export function addClusterRoutes(
  routes: Routes,
  { jobs, locator, ready }: ClusterRoutesOptions,
): void {
  const known = new KnownWorkers(jobs);
  routes.add("GET", "/leader", KNOWN, async (ctx) => {
    const leader = await locator.leader();
    if (leader === undefined) throw new MrError("unavailable", "there is no leader just now");
    ctx.body = leader;
  });
  routes.add("GET", "/workers", KNOWN, async (ctx, { places: viewer }) => {
    const { items, next } = await jobs.workers({ viewer, ...pageIn(ctx) });
    ctx.body = { workers: items.map(workerJson), ...nextPage(ctx, next) };
  });
  // What there is to do, for whoever decides how many workers there should be.
  routes.add("GET", "/queue", KNOWN, async (ctx, { places }) => {
    const { jobs: byState, tasksOpen, tasksRunning } = await jobs.count(places);
    const { succeeded = 0, failed = 0, cancelled = 0 } = byState;
    const all = Object.values(byState).reduce((sum, count) => sum + count, 0);
    const open = all - succeeded - failed - cancelled;
    ctx.body = { tasks: tasksOpen, running: tasksRunning, jobs: open };
  });
  routes.add("GET", "/healthz", OPEN, (ctx) => {
    ctx.body = { status: "ok", pid: process.pid };
  });
  // A proxy is ready when it listens: with no leader it says so, and results are to be had.
  routes.add("GET", "/readyz", OPEN, async (ctx) => {
    if (!ready()) throw new MrError("unavailable", "this proxy is about to end");
    ctx.body = { status: "ready", workers: await known.workers() };
  });
}
