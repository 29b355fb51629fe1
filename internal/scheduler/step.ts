/**
 * The scheduler's pure core: step(state, event) -> commands. It reads no clock,
 * draws no random number and does no I/O, so a whole cluster can be simulated.
 * `state` is changed in place; the caller runs events one at a time.
 *
 * Invariants, cited where they are relied on and checked by the simulation:
 *
 * S1  a task has at most one winner: `done` is entered once, and left only where
 *     the output is lost or rests on one that is (lost_outputs.ts), recorded as such.
 * S2  an attempt has one live lease, on one worker; a worker never has more
 *     leases than fit the slots it offered. A task has at most two attempts that count,
 *     the second on another worker (stragglers.ts).
 * S3  a task that is not done and whose stage is current is running, ready,
 *     delayed or held: never forgotten.
 * S4  a reduce task is granted only when every map task is done, and its
 *     sources are the winners' outputs.
 * S5  from `committing` on a job can only succeed; unless what was staged is gone, when the
 *     decision is taken back, recorded as such (lost_outputs.ts), or storage refuses to make it
 *     visible, when the job fails (job_stages.ts).
 * S6  every completed attempt is answered by `settled`, so that no worker keeps
 *     or deletes data on a guess.
 * S7  an ended job is swept only when none of its attempts lives.
 */

import { grantAlone } from "./alone.ts";
import { assignTasks } from "./assign.ts";
import { completed, failed, heartbeat, lapseLeases } from "./attempts.ts";
import { beginReducesEarly } from "./early_reduces.ts";
import type { Command, Event } from "./events.ts";
import { collectLeftovers, expireJobs, sweepLeftovers, swept } from "./job_end.ts";
import {
  cutDone,
  cutFailed,
  planFailed,
  planned,
  published,
  publishFailed,
  publishRefused,
  trouble,
} from "./job_stages.ts";
import { cancelJob, lookAtQueue, startQueued, submitJob } from "./jobs.ts";
import { continuePipelines } from "./pipeline.ts";
import { answerQuery } from "./queries.ts";
import { makeReady, type State } from "./state.ts";
import { backUpStragglers } from "./stragglers.ts";
import { disconnected, goodbye, hello, liftHold, ready, removeAwayWorkers } from "./workers.ts";

export function step(state: State, event: Event): Command[] {
  const out: Command[] = [];
  handle(state, event, out);
  if (event.kind !== "query") {
    continuePipelines(state, event, out);
    startQueued(state, event, out);
    grantAlone(state, event.atMs, out);
    assignTasks(state, event.atMs, out);
    if (event.kind === "tick") {
      backUpStragglers(state, event.atMs, out);
      beginReducesEarly(state, event.atMs, out);
    }
  }
  return out;
}

function handle(state: State, event: Event, out: Command[]): void {
  switch (event.kind) {
    case "submit":
      return submitJob(state, event, out);
    case "cancel":
      return cancelJob(state, event, out);
    case "query":
      return answerQuery(state, event, out);
    case "planned":
      return planned(state, event, out);
    case "plan-failed":
      return planFailed(state, event, out);
    case "cut":
      return cutDone(state, event, out);
    case "cut-failed":
      return cutFailed(state, event, out);
    case "published":
      return published(state, event, out);
    case "publish-failed":
      return publishFailed(state, event, out);
    case "publish-refused":
      return publishRefused(state, event, out);
    case "trouble":
      return trouble(state, event, out);
    case "swept":
      return swept(state, event, out);
    case "collected":
      return sweepLeftovers(state, event, out);
    case "worker-disconnected":
      return disconnected(state, event);
    case "worker-message":
      return workerMessage(state, event, out);
    case "tick":
      lapseLeases(state, event, out);
      removeAwayWorkers(state, event.atMs, out);
      liftHold(state, event.atMs);
      wakeDelayed(state, event.atMs);
      lookAtQueue(state, event.atMs);
      collectLeftovers(state, event.atMs, out);
      return expireJobs(state, event.wallMs, out);
  }
}

type WorkerEvent = Extract<Event, { kind: "worker-message" }>;

function workerMessage(state: State, event: WorkerEvent, out: Command[]): void {
  const { message } = event;
  if (message.kind === "hello") return hello(state, event, message, out);
  const worker = state.workers.get(event.worker);
  // Words of a stream that was replaced by a newer one are stale.
  if (worker === undefined || worker.session !== event.session) return;
  switch (message.kind) {
    case "ready":
      return ready(state, worker, message);
    case "heartbeat":
      return heartbeat(state, worker, message, event.atMs, out);
    case "completed":
      return completed(state, worker, message, event, out);
    case "failed":
      return failed(state, worker, message, event, out);
    case "goodbye":
      return goodbye(state, worker, event, out);
  }
}

function wakeDelayed(state: State, atMs: number): void {
  for (const job of state.jobs.values()) {
    for (const phase of [job.map, job.reduce]) {
      if (phase.delayed.length === 0) continue;
      for (const { index, atMs: dueMs } of phase.delayed)
        if (dueMs <= atMs) makeReady(state, job, phase, index, "last");
      phase.delayed = phase.delayed.filter((entry) => entry.atMs > atMs);
    }
  }
}
