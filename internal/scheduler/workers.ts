import { key } from "../model/records.ts";
import type { WorkerMessage } from "../model/session.ts";
import { loseAttempt } from "./attempts.ts";
import type { Command, Event } from "./events.ts";
import { release } from "./job_stages.ts";
import { mayHold, openLease, revokeMessage, send } from "./leases.ts";
import { findCurrent } from "./lost_outputs.ts";
import { put } from "./record_writes.ts";
import type { State, Worker } from "./state.ts";

type Of<K extends Event["kind"]> = Extract<Event, { kind: K }>;
type Said<K extends WorkerMessage["kind"]> = Extract<WorkerMessage, { kind: K }>;

/** A stream opens: welcome, then agree on what this worker runs. */
export function hello(
  state: State,
  event: Of<"worker-message">,
  message: Said<"hello">,
  out: Command[],
): void {
  const id = event.worker;
  let worker = state.workers.get(id);
  if (worker === undefined) {
    worker = newWorker(message.worker);
    state.workers.set(id, worker);
    out.push(put(key.worker(id), worker.info));
  } else if (worker.session !== undefined) {
    out.push({ kind: "close", worker: id, session: worker.session });
  }
  worker.info = message.worker;
  worker.announced = new Set(message.attempts);
  state.slots = undefined;
  worker.session = event.session;
  worker.sent = 0;
  worker.seen = 0;
  worker.free = 0;
  worker.ahead = 0;
  const { heartbeatMs, leaseMs } = state.config;
  send(worker, { kind: "welcome", epoch: state.epoch, heartbeatMs, leaseMs }, out);
  reconcile(state, worker, message.attempts, event, out);
  state.hold?.expected.delete(id);
  liftHold(state, event.atMs);
}

export function newWorker(info: Worker["info"]): Worker {
  return {
    info,
    session: undefined,
    awayUntilMs: Number.POSITIVE_INFINITY,
    sent: 0,
    seen: 0,
    free: 0,
    ahead: 0,
    attempts: new Set(),
    announced: new Set(),
    inherited: false,
    reserved: false,
    alone: undefined,
    losses: 0,
    probationUntilMs: 0,
  };
}

/** Renews what both sides know, adopts what only the worker knows, gives up what only we know. */
function reconcile(
  state: State,
  worker: Worker,
  announced: string[],
  event: Of<"worker-message">,
  out: Command[],
): void {
  const there = new Set(announced);
  for (const id of [...worker.attempts]) {
    const attempt = state.attempts.get(id);
    if (attempt !== undefined && !there.has(id))
      loseAttempt(state, attempt, "the worker no longer has it", event, out);
  }
  for (const id of announced) {
    const attempt = state.attempts.get(id);
    if (attempt === undefined) adopt(state, worker, id, event.atMs, out);
    else if (attempt.worker === worker.info.id) {
      attempt.deadlineMs = event.atMs + state.config.leaseMs;
      if (attempt.revoked) revokeMessage(worker, id, "no longer needed", out);
    }
  }
}

/** Takes over an attempt another leader granted (or we gave up), if its task still needs one (S2). */
function adopt(state: State, worker: Worker, id: string, atMs: number, out: Command[]): void {
  const found = mayHold(state, worker, id) ? findCurrent(state, id) : undefined;
  if (found === undefined || found.task.state.kind !== "pending") {
    // A sealed attempt ignores this: it will say `completed` and be answered `settled` (S6).
    revokeMessage(worker, id, "no longer needed", out);
    return;
  }
  openLease(state, found.job, found.task, worker, id, atMs);
}

export function ready(state: State, worker: Worker, message: Said<"ready">): void {
  const { slots, reducesPerSlot } = worker.info;
  worker.free = Math.min(message.free, slots * reducesPerSlot);
  worker.ahead = Math.min(message.ahead, slots * reducesPerSlot);
  worker.seen = Math.min(message.seen, worker.sent);
  if (worker.free + worker.ahead > 0) state.idle.add(worker.info.id);
}

/** A broken connection has a while to come back before its leases lapse. */
export function disconnected(state: State, event: Of<"worker-disconnected">): void {
  const worker = state.workers.get(event.worker);
  if (worker === undefined || worker.session !== event.session) return;
  worker.session = undefined;
  worker.reserved = false;
  worker.free = 0;
  worker.ahead = 0;
  state.idle.delete(event.worker);
  worker.awayUntilMs = event.atMs + state.config.reconnectMs;
  for (const id of worker.attempts) {
    const attempt = state.attempts.get(id);
    if (attempt !== undefined)
      attempt.deadlineMs = Math.min(attempt.deadlineMs, worker.awayUntilMs);
  }
}

/** It leaves in good order: whatever it still had is handed back at no charge. */
export function goodbye(
  state: State,
  worker: Worker,
  event: Of<"worker-message">,
  out: Command[],
): void {
  for (const id of [...worker.attempts]) {
    const attempt = state.attempts.get(id);
    if (attempt !== undefined) loseAttempt(state, attempt, "the worker left", event, out);
  }
  removeWorker(state, worker, out);
}

export function removeAwayWorkers(state: State, atMs: number, out: Command[]): void {
  for (const worker of [...state.workers.values()])
    if (worker.session === undefined && worker.awayUntilMs <= atMs && worker.attempts.size === 0)
      removeWorker(state, worker, out);
}

function removeWorker(state: State, worker: Worker, out: Command[]): void {
  const { id } = worker.info;
  state.workers.delete(id);
  state.slots = undefined;
  state.idle.delete(id);
  state.hold?.expected.delete(id);
  out.push({ kind: "put", writes: [{ key: key.worker(id), value: undefined }] });
}

/**
 * Ends the wait after a takeover: when every worker of the predecessor has
 * announced what it runs, or when the leases it may have are over anyway.
 */
export function liftHold(state: State, atMs: number): void {
  const { hold } = state;
  if (hold === undefined || (hold.expected.size > 0 && atMs < hold.untilMs)) return;
  state.hold = undefined;
  for (const worker of state.workers.values())
    if (hold.expected.has(worker.info.id)) worker.awayUntilMs = atMs;
  for (const job of state.jobs.values()) release(state, job);
}
