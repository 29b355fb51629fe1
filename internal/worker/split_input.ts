import { isCompressed } from "../model/input_format.ts";
import type { ObjectStore } from "../model/object_store.ts";
import type { Assignment, InputRange, Split } from "../model/task.ts";
import { type Extent, extentOf } from "../shuffle/split_reader.ts";

/** Ranges of a split that are asked for at a time: many small files would be as many waits for an answer. */
const BEGUN_MAX = 8;

/** A read of which the first bytes are on their way. */
interface Begun {
  chunks: AsyncIterator<Uint8Array>;
  first: Promise<IteratorResult<Uint8Array>>;
}

/**
 * What a map task reads. Over a network it is asked for before it is wanted: the first ranges while
 * the slot still writes what the task before has made, the next ones while a script works on those
 * before. How much comes ahead of its reader is the store's to bound.
 */
export class SplitInput implements Disposable {
  private readonly store: ObjectStore;
  private readonly split: Split;
  private readonly onRead: () => void;
  private readonly stop = new AbortController();
  /** By what is read, in the order of the split. */
  private readonly begun = new Map<string, Begun>();
  /** How many of the split's ranges have been asked for ahead. */
  private asked = 0;
  private signal: AbortSignal | undefined;
  private readonly giveUp = () => this.stop.abort(this.signal?.reason);

  /** @param onRead called when nothing more is read of the last range, if it is read over a network. */
  constructor(store: ObjectStore, { input }: Assignment, onRead: () => void = () => undefined) {
    this.store = store;
    this.split = input.kind === "map" ? input.split : [];
    this.onRead = onRead;
  }

  /** From now on it is given up with what reads it. */
  follow(signal: AbortSignal): void {
    this.signal = signal;
    if (signal.aborted) this.giveUp();
    else signal.addEventListener("abort", this.giveUp, { once: true });
  }

  /** Asks for the first ranges, or for the next ones. */
  begin(): void {
    if (!this.store.remote) return;
    while (this.begun.size < BEGUN_MAX) {
      const range = this.split[this.asked];
      if (range === undefined) return;
      this.asked += 1;
      const extent = wholeOf(range);
      // Named twice, it is read the second time when it is wanted.
      if (this.begun.has(keyOf(range, extent))) continue;
      const chunks = this.open(range, extent)[Symbol.asyncIterator]();
      const first = chunks.next();
      // Whoever reads it will hear of it.
      first.catch(() => undefined);
      this.begun.set(keyOf(range, extent), { chunks, first });
    }
  }

  private open({ container, name, etag }: InputRange, extent: Extent): AsyncIterable<Uint8Array> {
    const { signal } = this.stop;
    return this.store.read(container, name, { ...extent, etag, signal, reuse: true });
  }

  /** Bytes of a range's object, in the version that the plan saw. A chunk is good until the next is asked for. */
  async *read(range: InputRange, extent: Extent): AsyncIterable<Uint8Array> {
    const key = keyOf(range, extent);
    const begun = this.begun.get(key);
    try {
      if (begun === undefined) yield* this.open(range, extent);
      else {
        this.begun.delete(key);
        this.begin();
        yield* goOn(begun);
      }
    } finally {
      // Its reader mostly leaves before the end: the rest belongs to the next task.
      const last = this.split.at(-1);
      const isLast = last !== undefined && key === keyOf(last, wholeOf(last));
      if (isLast && this.store.remote) this.onRead();
    }
  }

  /** What was asked for in vain is given up. */
  [Symbol.dispose](): void {
    this.signal?.removeEventListener("abort", this.giveUp);
    this.stop.abort();
    for (const { chunks } of this.begun.values()) chunks.return?.().catch(() => undefined);
    this.begun.clear();
  }
}

async function* goOn({ chunks, first }: Begun): AsyncIterable<Uint8Array> {
  try {
    for (let next = await first; !next.done; next = await chunks.next()) yield next.value;
  } finally {
    await chunks.return?.();
  }
}

/** What is read of a range's object. */
export function wholeOf(range: InputRange): Extent {
  return isCompressed(range.name) ? { start: 0, length: range.size } : extentOf(range);
}

function keyOf({ container, name }: InputRange, { start, length }: Extent): string {
  return `${container}/${name} ${start}+${length}`;
}
