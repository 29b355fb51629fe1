import { MrError } from "../model/errors.ts";
import { OUTPUT, type Output, STATUS } from "./kernel/functions.ts";
import type { Kernel } from "./kernel/kernel.ts";
import { LARGE_BYTES } from "./large_memory.ts";
import type { RecordSink } from "./record_sink.ts";
import { BLOCK_BYTES, readRecords } from "./run_format.ts";

/** Takes the next block of records, or the next lines; they are good until it resolves. */
export type Take = (bytes: Buffer) => Promise<void>;

/** Pairs in order, to be had once. */
export interface SortedPairs {
  /**
   * @param blockBytes a block of records has about so many; default 256 KiB.
   * @returns how many pairs there were, repeats included.
   */
  give(as: Output, take: Take, blockBytes?: number): Promise<number>;
}

/** Lines are handed on in pieces of this size: what a pipe takes at a time. */
const LINES_BYTES = 128 * 1024;
/** A block is full somewhat beyond its size. */
const ROOM_BYTES = 4_096;

/** The kernel's output, wherever its records come from. */
export class KernelOutput {
  private readonly kernel: Kernel;
  private at: number;
  private size = BLOCK_BYTES + ROOM_BYTES;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.at = kernel.region(this.size);
  }

  /**
   * Calls `next` until it has given all its records.
   * @param load brings the next block of the source that the kernel waits for.
   */
  async drain(
    next: () => number,
    as: Output,
    take: Take,
    blockBytes = BLOCK_BYTES,
    load?: (source: number) => Promise<void>,
  ): Promise<number> {
    const { kernel } = this;
    const { fn } = kernel;
    const open = () => {
      const lines = as === OUTPUT.lines && this.size <= BLOCK_BYTES + ROOM_BYTES;
      fn.setOutput(as, this.at, lines ? LINES_BYTES : this.size, blockBytes);
    };
    open();
    fn.resetOutput();
    while (true) {
      const status = next();
      if (status >= STATUS.needs) {
        await load?.(status - STATUS.needs);
        continue;
      }
      if (status === STATUS.damaged) throw damagedRecord();
      if (status === STATUS.tooSmall) {
        // Lines that are longer each time must not take a region each.
        this.size = Math.max(2 * this.size, fn.outputNeeds() + ROOM_BYTES);
        if (this.size > LARGE_BYTES) kernel.oversize();
        this.at = kernel.region(this.size);
        open();
        continue;
      }
      const end = fn.takeOutput();
      if (end > this.at) await take(kernel.bytes.subarray(this.at, end));
      if (status === STATUS.end) return fn.recordsGiven();
    }
  }
}

export function damagedRecord(): MrError {
  return new MrError("corrupt", "a block of a map output holds a record that is not whole");
}

/** Hands the pairs on one by one. */
export async function eachPair(pairs: SortedPairs, sink: RecordSink): Promise<number> {
  const records = await pairs.give(OUTPUT.records, (block) => readRecords(block, sink));
  await sink.flush();
  return records;
}
