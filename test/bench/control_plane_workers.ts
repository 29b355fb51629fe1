/**
 * A process of many simulated workers: production sessions, agents and sockets, one connection each,
 * but slots that do nothing. A map attempt is completed in the turn it was granted; a reduce attempt
 * never is, so that its job stays. They ask for work when told to begin. Says how far all of them are ten times a second.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../../internal/model/logger.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import type {
  LeaderDialer,
  LeaderStream,
  MasterMessage,
  WorkerMessage,
} from "../../internal/model/session.ts";
import { type Assignment, mapOutputName, newStats } from "../../internal/model/task.ts";
import { MasterDialer } from "../../internal/rpc/dialer.ts";
import type { Slots } from "../../internal/worker/slots.ts";
import type { TaskResult } from "../../internal/worker/task_context.ts";
import { Worker } from "../../internal/worker/worker.ts";

export interface WorkersOptions {
  /** HOST:PORT of each. */
  masters: string[];
  first: number;
  count: number;
  slots: number;
}

/** Sums over the workers of one process, at a moment of its wall clock. */
export interface WorkersReport {
  atMs: number;
  sessions: number;
  granted: number;
  /** Completions that a leader has acknowledged. */
  settled: number;
  lost: number;
}

const REPORT_MS = 100;
/** Connecting all at once is no part of what is measured, except after a leader's death. */
const STARTS_PER_TURN = 20;

/** Until told to begin, no worker asks for work. */
let begun = false;
const withheld = new Map<LeaderStream, WorkerMessage>();

const report: WorkersReport = { atMs: 0, sessions: 0, granted: 0, settled: 0, lost: 0 };

/** Counts what passes through a worker's stream. */
class CountingDialer implements LeaderDialer {
  private readonly dialer: LeaderDialer;

  constructor(dialer: LeaderDialer) {
    this.dialer = dialer;
  }

  async dial(): Promise<LeaderStream> {
    const stream = await this.dialer.dial();
    return {
      send: (message) => {
        if (message.kind !== "ready" || begun) stream.send(message);
        else withheld.set(stream, message);
      },
      messages: () => counted(stream.messages()),
      close: () => stream.close(),
      abort: () => stream.abort(),
    };
  }
}

async function* counted(messages: AsyncIterable<MasterMessage>): AsyncIterable<MasterMessage> {
  let welcome = false;
  try {
    for await (const message of messages) {
      if (message.kind === "welcome" && !welcome) {
        welcome = true;
        report.sessions += 1;
      } else if (message.kind === "grant") report.granted += 1;
      else if (message.kind === "settled") {
        if (message.won) report.settled += 1;
        else report.lost += 1;
      }
      yield message;
    }
  } finally {
    if (welcome) report.sessions -= 1;
  }
}

/** Stands in for a worker's threads. */
class IdleSlots {
  private readonly finished: (attempt: string, result: TaskResult) => void;

  constructor(finished: (attempt: string, result: TaskResult) => void) {
    this.finished = finished;
  }

  run({ attempt, input }: Assignment): void {
    if (input.kind === "reduce") return;
    const bytes = input.split.reduce((sum, range) => sum + range.length, 0);
    const object = mapOutputName(attempt);
    const digest = "00112233445566778899aabbccddeeff";
    const output = {
      kind: "segments" as const,
      object,
      size: bytes + 20,
      indexOffset: bytes,
      digest,
      sizes: "AAAA",
    };
    const stats = { ...newStats(), recordsIn: 1_000, bytesIn: bytes, wallMs: 1 };
    queueMicrotask(() =>
      this.finished(attempt, { kind: "completed", output, stats, bad: undefined }),
    );
  }

  stop(): void {}

  progress(): [] {
    return [];
  }

  async close(): Promise<void> {}
}

const silent = () => undefined;
const logger: Logger = { debug: silent, info: silent, warn: silent, error: silent };

const options = JSON.parse(process.argv[2] ?? "{}") as WorkersOptions;
process.on("disconnect", () => process.exit(0));
process.on("message", () => {
  begun = true;
  for (const [stream, message] of withheld) stream.send(message);
  withheld.clear();
});
setInterval(() => process.send?.({ ...report, atMs: Date.now() }), REPORT_MS);

for (let index = 0; index < options.count; index += 1) {
  const name = `bench-${options.first + index}`;
  new Worker({
    info: { id: name, host: "bench", pid: process.pid, slots: options.slots, reducesPerSlot: 1 },
    dialer: new CountingDialer(new MasterDialer(options.masters, undefined)),
    store: {} as ObjectStore,
    logger,
    slots: ({ onFinished }) => new IdleSlots(onFinished) as unknown as Slots,
  }).start();
  if (index % STARTS_PER_TURN === STARTS_PER_TURN - 1) await delay(10);
}
