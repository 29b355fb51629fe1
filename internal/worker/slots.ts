import { Worker as Thread } from "node:worker_threads";
import type { AttemptId } from "../model/ids.ts";
import type { Assignment, AttemptProgress } from "../model/task.ts";
import type { FromSlot, ToSlot } from "./slot_protocol.ts";
import { failedResult, type TaskResult } from "./task_context.ts";

export interface SlotsOptions {
  /** The module that calls `serveSlot`, and what it is given. */
  entry: URL;
  workerData: unknown;
  count: number;
  onFinished: (attempt: AttemptId, result: TaskResult) => void;
}

interface Slot {
  thread: Thread;
  attempt: AttemptId | undefined;
  progress: AttemptProgress | undefined;
  /** Runs from a stop until the thread obeys. */
  patience: NodeJS.Timeout | undefined;
}

/** A thread that does not end its attempt in this time is ended itself, in milliseconds. */
const STOP_MS = 10_000;

/** The worker's threads: user data never passes through the main one, so heartbeats are never late. */
export class Slots {
  private readonly options: SlotsOptions;
  private readonly slots: Slot[] = [];
  private closed = false;

  constructor(options: SlotsOptions) {
    this.options = options;
    for (let i = 0; i < options.count; i += 1) this.slots.push(this.openSlot());
  }

  private openSlot(): Slot {
    const { entry, workerData } = this.options;
    const thread = new Thread(entry, { workerData });
    const slot: Slot = { thread, attempt: undefined, progress: undefined, patience: undefined };
    thread.on("message", (message: FromSlot) => this.hear(slot, message));
    thread.on("error", (error) => this.replace(slot, error.message));
    return slot;
  }

  private hear(slot: Slot, message: FromSlot): void {
    if (message.attempt !== slot.attempt) return;
    if (message.kind === "progress") {
      slot.progress = { attempt: message.attempt, ...message.progress };
      return;
    }
    clearTimeout(slot.patience);
    slot.attempt = undefined;
    slot.progress = undefined;
    slot.patience = undefined;
    this.options.onFinished(message.attempt, message.result);
  }

  /** A thread that died (out of memory) takes its attempt with it, not the worker. */
  private replace(slot: Slot, why: string): void {
    const at = this.slots.indexOf(slot);
    if (at < 0 || this.closed) return;
    this.slots[at] = this.openSlot();
    clearTimeout(slot.patience);
    if (slot.attempt === undefined) return;
    const message = `the slot's thread died: ${why}`;
    this.options.onFinished(slot.attempt, failedResult("infra", message));
  }

  /** The caller knows that a slot is free. */
  run(assignment: Assignment): void {
    const slot = this.slots.find((candidate) => candidate.attempt === undefined);
    if (slot === undefined) throw new Error("no slot is free");
    slot.attempt = assignment.attempt;
    tell(slot, { kind: "run", assignment });
  }

  stop(attempt: AttemptId): void {
    const slot = this.slots.find((candidate) => candidate.attempt === attempt);
    if (slot === undefined) return;
    tell(slot, { kind: "stop", attempt });
    slot.patience ??= setTimeout(() => {
      void slot.thread.terminate();
      this.replace(slot, "it did not stop its attempt");
    }, STOP_MS);
  }

  progress(): AttemptProgress[] {
    return this.slots.flatMap((slot) => slot.progress ?? []);
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const slot of this.slots) clearTimeout(slot.patience);
    await Promise.all(this.slots.map((slot) => slot.thread.terminate()));
  }
}

function tell(slot: Slot, message: ToSlot): void {
  slot.thread.postMessage(message);
}
