import { Worker as Thread } from "node:worker_threads";
import { type AttemptId, type JobId, parseAttemptId } from "../model/ids.ts";
import type { Assignment, AttemptProgress, EarlySources } from "../model/task.ts";
import type { FromSlot, ToSlot } from "./slot_protocol.ts";
import { failedResult, type TaskResult } from "./task_context.ts";

export interface SlotsOptions {
  /** The module that calls `serveSlot`, and what it is given. */
  entry: URL;
  workerData: unknown;
  count: number;
  /** What is no data may take so much of a thread's memory, in MB. */
  heapMb: number;
  onFinished: (attempt: AttemptId, result: TaskResult) => void;
  /** An attempt has read all its input. */
  onFed: (attempt: AttemptId) => void;
}

interface Slot {
  thread: Thread;
  attempts: Map<AttemptId, Running>;
  /** Their input has been asked for here. */
  expected: Set<AttemptId>;
  /** Of each job, the partitions that are prepared here. */
  early: Map<JobId, Set<number>>;
}

interface Running {
  progress: AttemptProgress | undefined;
  /** Runs from a stop until the thread obeys. */
  patience: NodeJS.Timeout | undefined;
}

/** Data is no object here, and what is, is short-lived: more would only be memory that is touched anew all the time. */
const YOUNG_MB = 2;

/** A thread that does not end its attempt in this time is ended itself, in milliseconds. */
const STOP_MS = 10_000;

/**
 * The worker's threads: user data never passes through the main one, so heartbeats are never late.
 * How many attempts there may be is the agent's to know; here they are spread over the threads.
 */
export class Slots {
  private readonly options: SlotsOptions;
  private readonly slots: Slot[] = [];
  private closed = false;

  constructor(options: SlotsOptions) {
    this.options = options;
    for (let i = 0; i < options.count; i += 1) this.slots.push(this.openSlot());
  }

  private openSlot(): Slot {
    const { entry, workerData, heapMb } = this.options;
    const limits = { maxYoungGenerationSizeMb: YOUNG_MB, maxOldGenerationSizeMb: heapMb };
    const thread = new Thread(entry, { workerData, resourceLimits: limits });
    const slot: Slot = { thread, attempts: new Map(), expected: new Set(), early: new Map() };
    thread.on("message", (message: FromSlot) => this.hear(slot, message));
    thread.on("error", (error: NodeJS.ErrnoException) =>
      this.replace(slot, error.message, error.code === "ERR_WORKER_OUT_OF_MEMORY"),
    );
    return slot;
  }

  private hear(slot: Slot, message: FromSlot): void {
    const { attempt } = message;
    const running = slot.attempts.get(attempt);
    if (running === undefined) return;
    if (message.kind === "fed") return this.options.onFed(attempt);
    if (message.kind === "progress") {
      running.progress = { attempt, ...message.progress };
      return;
    }
    clearTimeout(running.patience);
    slot.attempts.delete(attempt);
    this.options.onFinished(attempt, message.result);
  }

  /**
   * A thread that died takes its attempts with it, not the worker. Where memory was what it died of, that
   * is the fault of their job, if it was one job's: on any other worker it would die of it, too.
   */
  private replace(slot: Slot, why: string, outOfMemory = false): void {
    const at = this.slots.indexOf(slot);
    if (at < 0 || this.closed) return;
    this.slots[at] = this.openSlot();
    const message = `the slot's thread died: ${why}`;
    const jobs = new Set([...slot.attempts.keys()].map((attempt) => parseAttemptId(attempt)?.job));
    const fault = outOfMemory && jobs.size === 1 ? "user" : "infra";
    for (const [attempt, { patience }] of slot.attempts) {
      clearTimeout(patience);
      this.options.onFinished(attempt, failedResult(fault, message));
    }
  }

  /** On the thread that has begun with it, or has the least to do. */
  run(assignment: Assignment): void {
    const { attempt, job, input } = assignment;
    const idlest = this.slotFor(job.id, input.kind === "reduce" ? input.partition : undefined);
    const expecting = this.expecting(attempt);
    const inVain = expecting !== undefined && expecting.attempts.size > idlest.attempts.size;
    if (inVain) this.unexpect(attempt);
    const slot = inVain ? idlest : (expecting ?? idlest);
    slot.expected.delete(attempt);
    slot.attempts.set(attempt, { progress: undefined, patience: undefined });
    tell(slot, { kind: "run", assignment });
  }

  private slotFor(job: JobId, partition: number | undefined): Slot {
    const begun = this.slots.find(
      ({ early }) => partition !== undefined && early.get(job)?.has(partition),
    );
    const load = ({ attempts, early }: Slot) => attempts.size + (early.get(job)?.size ?? 0);
    return begun ?? this.slots.reduce((least, one) => (load(one) < load(least) ? one : least));
  }

  /** @param after what runs on the thread that will have it. */
  expect(assignment: Assignment, after: AttemptId): void {
    const slot = this.slots.find(({ attempts }) => attempts.has(after));
    if (slot === undefined) return;
    slot.expected.add(assignment.attempt);
    tell(slot, { kind: "expect", assignment });
  }

  unexpect(attempt: AttemptId): void {
    const slot = this.expecting(attempt);
    if (slot === undefined) return;
    slot.expected.delete(attempt);
    tell(slot, { kind: "unexpect", attempt });
  }

  private expecting(attempt: AttemptId): Slot | undefined {
    return this.slots.find(({ expected }) => expected.has(attempt));
  }

  prefetch({ job, partition, sources, maps }: EarlySources): void {
    const slot = this.slotFor(job.id, partition);
    const partitions = slot.early.get(job.id) ?? new Set();
    slot.early.set(job.id, partitions.add(partition));
    tell(slot, { kind: "prefetch", early: { job, partition, sources, maps } });
  }

  /** @param job undefined: all jobs. */
  forget(job: JobId | undefined): void {
    for (const slot of this.slots) {
      if (slot.early.size === 0) continue;
      if (job === undefined) slot.early.clear();
      else if (!slot.early.delete(job)) continue;
      tell(slot, { kind: "forget", job });
    }
  }

  stop(attempt: AttemptId): void {
    const slot = this.slots.find(({ attempts }) => attempts.has(attempt));
    const running = slot?.attempts.get(attempt);
    if (slot === undefined || running === undefined) return;
    tell(slot, { kind: "stop", attempt });
    running.patience ??= setTimeout(() => {
      void slot.thread.terminate();
      this.replace(slot, "it did not stop its attempt");
    }, STOP_MS);
  }

  progress(): AttemptProgress[] {
    const running = this.slots.flatMap(({ attempts }) => [...attempts.values()]);
    return running.flatMap(({ progress }) => progress ?? []);
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const { attempts } of this.slots)
      for (const { patience } of attempts.values()) clearTimeout(patience);
    await Promise.all(this.slots.map((slot) => slot.thread.terminate()));
  }
}

function tell(slot: Slot, message: ToSlot): void {
  slot.thread.postMessage(message);
}
