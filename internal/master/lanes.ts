import { MrError } from "../model/errors.ts";

const REQUESTS_AT_A_TIME = 16;

/** Works on some items at a time. When one fails, no other is begun, and nothing is under way any more. */
export async function inLanes<T>(items: T[], work: (item: T) => Promise<unknown>): Promise<void> {
  let next = 0;
  const lane = async () => {
    try {
      while (next < items.length) await work(items[next++] as T);
    } finally {
      // After a failure the others stop; at the end there is nothing left anyway.
      next = items.length;
    }
  };
  const lanes = Array.from({ length: Math.min(REQUESTS_AT_A_TIME, items.length) }, lane);
  await Promise.allSettled(lanes);
  await Promise.all(lanes);
}

/** The same, with at most so many bytes of them in memory. */
export async function inBatches<T>(
  items: T[],
  bytesOf: (item: T) => number,
  bytesMax: number,
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  let batch: T[] = [];
  let bytes = 0;
  for (const item of items) {
    if (
      batch.length > 0 &&
      (batch.length === REQUESTS_AT_A_TIME || bytes + bytesOf(item) > bytesMax)
    ) {
      await Promise.all(batch.map(work));
      [batch, bytes] = [[], 0];
    }
    batch.push(item);
    bytes += bytesOf(item);
  }
  await Promise.all(batch.map(work));
}

/** Lets so many through at a time; who would find too many waiting is told to come back. */
export class Gate {
  private free: number;
  private readonly waitingMax: number;
  private readonly waiting: (() => void)[] = [];

  constructor(free: number, waitingMax: number) {
    this.free = free;
    this.waitingMax = waitingMax;
  }

  /** @throws MrError `too_many`. */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free -= 1;
    else if (this.waiting.length >= this.waitingMax)
      throw new MrError("too_many", "many ask for this just now; try again");
    else await new Promise<void>((go) => this.waiting.push(go));
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free += 1;
      else next();
    }
  }
}
