import { MrError } from "../../model/errors.ts";
import type { ReadOptions } from "../../model/object_store.ts";
import { LinkedAbort } from "./linked_abort.ts";
import { ReadAhead, type ReadBudget } from "./read_ahead.ts";
import { type Range, type ReadSource, resumingRead } from "./resuming_read.ts";

const MIB = 1024 * 1024;

/** All reads of a store together: one window beside the one being read, and some streams. */
export const READ_BYTES_MAX = 48 * MIB;

export interface ReadTuning {
  /** About so much is asked for in one request once there are several. */
  windowBytes: number;
  /** What a stream may hold for a consumer that is busy just then. */
  aheadBytes: number;
  /** After so many bytes it is known who waits for whom. */
  trialBytes: number;
  /** A connection as fast as this, in bytes a millisecond, is not what a task waits for. */
  fast: number;
}

const TUNING: ReadTuning = {
  windowBytes: 32 * MIB,
  aheadBytes: 4 * MIB,
  trialBytes: 8 * MIB,
  fast: 100 * 1024,
};

/**
 * Reads a range, as a rule with one request: a second one beside it brings nothing to a consumer
 * that is slower than the link, as a script is, and nothing where one connection fills the link.
 * Only if the consumer was found to spend a third of its time waiting for a slow connection is the
 * rest cut in windows, two of which come at the same time. The first request is left where the
 * second window begins.
 *
 * Measured with test/bench/storage.ts: where a connection gives 60 MB/s, windows take 0.6 of the
 * time of one stream (0.7 if the consumer is busy now and then). Straight from Azurite, whose one
 * core is busy with one stream, they would take 1.1 to 1.5 of it.
 */
export async function* windowedRead(
  of: Pick<ReadSource, "blob" | "patience" | "idleMs">,
  options: ReadOptions,
  budget: ReadBudget,
  tuning = TUNING,
): AsyncIterable<Uint8Array> {
  const stop = new LinkedAbort(options.signal);
  const source = { ...of, signal: stop.signal, etag: options.etag, size: undefined };
  const start = options.start ?? 0;
  const end = options.length === undefined ? Number.POSITIVE_INFINITY : start + options.length;
  const read = new Windows(source, { start, end }, { budget, tuning });
  try {
    for (let chunk = await read.next(); chunk !== undefined; chunk = await read.next()) yield chunk;
  } finally {
    // A consumer that stops early leaves requests behind it.
    stop.letGo();
    if (read.underWay) {
      stop.abort();
      await read.close();
    }
  }
}

interface Window {
  range: Range;
  ahead: ReadAhead;
  /** Ends, without error, when nothing of it is under way any more. */
  filling: Promise<void>;
}

/** The windows under way, two at most, in order. */
class Windows {
  private readonly source: ReadSource;
  private readonly whole: Readonly<Range>;
  private readonly budget: ReadBudget;
  private readonly tuning: ReadTuning;
  private readonly open: Window[] = [];
  private at: number;
  /** Where the last window that was asked for ends. */
  private asked: number;
  private waitedMs = 0;
  /** When the second chunk was asked for: how long the first took, and lay there, says nothing of the link's speed. */
  private sinceMs: number | undefined;
  /** Of each window; undefined as long as one request is to bring all. */
  private windowBytes: number | undefined;

  constructor(
    source: ReadSource,
    whole: Range,
    { budget, tuning }: { budget: ReadBudget; tuning: ReadTuning },
  ) {
    this.source = source;
    this.whole = whole;
    this.budget = budget;
    this.tuning = tuning;
    this.at = whole.start;
    this.asked = whole.start;
    this.ask(whole.end, tuning.aheadBytes);
  }

  async next(): Promise<Buffer | undefined> {
    while (true) {
      if (this.source.signal.aborted) throw new MrError("aborted", "storage: given up");
      const [window] = this.open;
      if (window === undefined) return undefined;
      if (this.at > this.whole.start) this.sinceMs ??= performance.now();
      const chunk = window.ahead.takeNow() ?? (await this.waitFor(window));
      if (chunk !== undefined) {
        this.at += chunk.length;
        if (this.windowBytes === undefined && this.linkIsSlower()) this.cut(window.range);
        return chunk;
      }
      this.open.shift();
      this.askNext();
    }
  }

  private async waitFor({ ahead }: Window): Promise<Buffer | undefined> {
    const fromMs = performance.now();
    const chunk = await ahead.next();
    if (this.sinceMs !== undefined) this.waitedMs += performance.now() - fromMs;
    return chunk;
  }

  private linkIsSlower(): boolean {
    const { trialBytes, windowBytes, fast } = this.tuning;
    const taken = this.at - this.whole.start;
    if (taken < trialBytes || this.end - this.at < 1.5 * windowBytes) return false;
    const ms = performance.now() - (this.sinceMs ?? 0);
    return this.waitedMs * 3 > ms && taken < ms * fast;
  }

  private get end(): number {
    return Math.min(this.whole.end, this.source.size ?? this.whole.end);
  }

  /** Cuts what is left in about equal windows; the request that is under way brings the first. */
  private cut(first: Range): void {
    const left = this.end - this.at;
    this.windowBytes = Math.ceil(left / Math.round(left / this.tuning.windowBytes));
    first.end = this.at + this.windowBytes;
    this.asked = first.end;
    this.askNext();
  }

  private askNext(): void {
    if (this.windowBytes === undefined) return;
    this.ask(Math.min(this.end, this.asked + this.windowBytes), this.tuning.windowBytes);
  }

  private ask(end: number, holdBytes: number): void {
    if (end <= this.asked) return;
    const range = { start: this.asked, end };
    const ahead = new ReadAhead(holdBytes, this.budget);
    const filling = resumingRead(this.source, range, ahead).then(
      () => ahead.finish(),
      (error) => ahead.finish(error),
    );
    this.open.push({ range, ahead, filling });
    this.asked = end;
  }

  get underWay(): boolean {
    return this.open.length > 0;
  }

  async close(): Promise<void> {
    for (const { ahead } of this.open) ahead.drop();
    await Promise.all(this.open.map(({ filling }) => filling));
  }
}
