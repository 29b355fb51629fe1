import { ORDER, OUTPUT, type Output } from "./kernel/functions.ts";
import { Kernel } from "./kernel/kernel.ts";
import type { KeyRange } from "./key_index.ts";
import type { LineOrder } from "./key_order.ts";
import { LARGE_BYTES, type LargeHold, type LargeShare, TooLarge } from "./large_memory.ts";
import { damagedRecord, KernelOutput, type SortedPairs, type Take } from "./sorted_pairs.ts";
import type { OpenSegment, SpillFolder } from "./spill.ts";

/** More segments than this are merged in passes, so that memory and open streams stay bounded. */
export const MERGE_FAN_IN = 32;

/**
 * Merges any number of sorted segments; beyond the fan-in, by way of spilled runs.
 * Of equal lines those of an earlier segment come first.
 * @param keys what lies outside is left out.
 */
export function mergedPairs(
  segments: OpenSegment[],
  order: LineOrder,
  spill: SpillFolder,
  keys?: KeyRange,
): SortedPairs {
  return {
    async give(as, take, blockBytes) {
      let rest = segments;
      for (let fanIn = MERGE_FAN_IN; ; ) {
        if (rest.length <= fanIn) {
          const merged = await mergeOnce(rest, order, keys, spill.memory, as, take, blockBytes);
          if (merged !== TOO_WIDE) return merged;
          fanIn = Math.max(2, Math.floor(rest.length / 2));
          continue;
        }
        const merged: OpenSegment[] = [];
        for (const group of groupsOf(rest, fanIn)) {
          const run = await spill.write(async (writer) => {
            const pairs = mergedPairs(group, order, spill, keys);
            await pairs.give(OUTPUT.records, (block) => writer.putBlock(block));
            await writer.endSegment();
          });
          merged.push(...run);
        }
        rest = merged;
      }
    },
  };
}

/** They do not fit into memory at the same time, and nothing has been given yet. */
const TOO_WIDE = "too wide";

/** Groups of at most `fanIn`, as even as can be. */
export function groupsOf<T>(runs: T[], fanIn: number): T[][] {
  const groups = Math.ceil(runs.length / fanIn);
  const size = Math.ceil(runs.length / Math.max(1, groups));
  return Array.from({ length: groups }, (_, i) => runs.slice(i * size, (i + 1) * size));
}

async function mergeOnce(
  segments: OpenSegment[],
  order: LineOrder,
  keys: KeyRange | undefined,
  memory: LargeShare,
  as: Output,
  take: Take,
  blockBytes?: number,
): Promise<number | typeof TOO_WIDE> {
  using kernel = Kernel.take();
  const { fn } = kernel;
  const sources = segments.map((open) => new Source(kernel, open, memory));
  let hasGiven = false;
  const taken: Take = (bytes) => {
    hasGiven = true;
    return take(bytes);
  };
  try {
    fn.setOrder(!order.byBytes ? ORDER.host : order.values ? ORDER.line : ORDER.key);
    kernel.host = {
      partition: () => 0,
      compare: (a, aKey, aAll, b, bKey, bAll) => {
        const { bytes } = kernel;
        return order.compare(bytes, a, aKey, a + aAll, bytes, b, bKey, b + bAll);
      },
    };
    const [from, to] = [keys?.from, keys?.to].map((key) => key && kernel.put(key));
    fn.setBounds(from ?? 0, keys?.from?.length ?? 0, to ?? 0, keys?.to?.length ?? 0);
    const output = new KernelOutput(kernel);
    fn.beginMerge(kernel.region(fn.mergeBytes(sources.length)), sources.length);
    const load = async (index: number) => {
      const { at, bytes } = await (sources[index] as Source).load();
      if (fn.setBlock(index, at, bytes) === 0) throw damagedRecord();
    };
    return await output.drain(() => fn.giveMerged(), as, taken, blockBytes, load);
  } catch (error) {
    if (error instanceof TooLarge && !hasGiven && segments.length > 2) return TOO_WIDE;
    throw error;
  } finally {
    await Promise.all(sources.map((source) => source.close()));
  }
}

/** One segment: the block that is being merged in the kernel's memory, the next one on its way. */
class Source {
  private readonly kernel: Kernel;
  private readonly blocks: AsyncIterator<Buffer>;
  private ahead: Promise<IteratorResult<Buffer>>;
  private at = 0;
  private size = 0;
  private readonly hold: LargeHold;

  constructor(kernel: Kernel, open: OpenSegment, memory: LargeShare) {
    this.kernel = kernel;
    this.hold = memory.hold();
    this.blocks = open()[Symbol.asyncIterator]();
    this.ahead = this.next();
  }

  private next(): Promise<IteratorResult<Buffer>> {
    const next = this.blocks.next();
    // Whoever asks for the block is told of its failure.
    next.catch(() => undefined);
    return next;
  }

  /** Puts the next block where the last one was; of none it says 0 bytes. */
  async load(): Promise<{ at: number; bytes: number }> {
    const { done, value } = await this.ahead;
    if (done === true) return { at: 0, bytes: 0 };
    if (value.length > this.size) {
      // The only block of a small segment is all there is; others are about as large as each other.
      const size = this.size === 0 ? value.length : Math.max(2 * this.size, value.length);
      await this.hold.add(size);
      if (size > LARGE_BYTES) this.kernel.oversize();
      this.size = size;
      this.at = this.kernel.region(this.size);
    }
    this.kernel.bytes.set(value, this.at);
    // Only now: the next one may take the same memory.
    this.ahead = this.next();
    return { at: this.at, bytes: value.length };
  }

  async close(): Promise<void> {
    this.hold[Symbol.dispose]();
    await this.ahead.catch(() => undefined);
    await this.blocks.return?.();
  }
}
