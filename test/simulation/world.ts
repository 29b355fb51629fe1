import { seeded } from "../support/corpus.ts";

/** A fake clock, seeded chance, and the queue of things that will happen. */
export class World {
  nowMs = 0;
  readonly seed: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  private queue: Entry[] = [];
  private order = 0;
  readonly log: string[] = [];

  constructor(seed: number) {
    this.seed = seed;
    this.random = seeded(seed);
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  between(min: number, max: number): number {
    return min + Math.floor(this.random() * (max - min + 1));
  }

  pick<T>(items: T[]): T | undefined {
    return items[Math.floor(this.random() * items.length)];
  }

  after(delayMs: number, run: () => void): void {
    this.order += 1;
    const entry = { atMs: this.nowMs + delayMs, order: this.order, run };
    // A binary heap by time, then by order of entry.
    const heap = this.queue;
    heap.push(entry);
    let at = heap.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!earlier(heap[at] as Entry, heap[parent] as Entry)) break;
      [heap[at], heap[parent]] = [heap[parent] as Entry, heap[at] as Entry];
      at = parent;
    }
  }

  /** Runs the next thing; false when nothing is left. */
  step(): boolean {
    const heap = this.queue;
    const first = heap[0];
    if (first === undefined) return false;
    const last = heap.pop() as Entry;
    if (heap.length > 0) {
      heap[0] = last;
      let at = 0;
      while (true) {
        const left = 2 * at + 1;
        if (left >= heap.length) break;
        const right = left + 1;
        const least =
          right < heap.length && earlier(heap[right] as Entry, heap[left] as Entry) ? right : left;
        if (!earlier(heap[least] as Entry, heap[at] as Entry)) break;
        [heap[at], heap[least]] = [heap[least] as Entry, heap[at] as Entry];
        at = least;
      }
    }
    this.nowMs = first.atMs;
    first.run();
    return true;
  }

  note(line: string): void {
    this.log.push(`${String(Math.round(this.nowMs)).padStart(7)} ${line}`);
  }
}

type Entry = { atMs: number; order: number; run: () => void };

function earlier(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
