import { OUTPUT } from "./kernel/functions.ts";
import { mergedPairs } from "./merge.ts";
import { PairCollector, type PairCollectorOptions } from "./pair_collector.ts";
import type { RunWriter } from "./run_format.ts";
import type { SortedPairs } from "./sorted_pairs.ts";
import type { OpenSegment, SpillFolder } from "./spill.ts";

/** Makes fewer pairs of the sorted ones of a partition, in the same order. */
export type Combine = (pairs: SortedPairs, writer: RunWriter) => Promise<void>;

/** So many spilled runs are worth another pass of the combiner when they are merged. */
const COMBINE_RUNS = 3;

/** Takes a script's output as it comes; gives its pairs sorted, by partition, combined where there is a combiner. */
export class PairSorter implements Disposable {
  private readonly options: PairCollectorOptions;
  private readonly combine: Combine | undefined;
  private readonly spill: SpillFolder;
  private readonly collector: PairCollector;
  private readonly runs: OpenSegment[][] = [];

  /** Beyond `sortBytes` sorted runs are spilled. */
  constructor(options: PairCollectorOptions, spill: SpillFolder, combine?: Combine) {
    this.options = options;
    this.combine = combine;
    this.spill = spill;
    this.collector = new PairCollector(options, () => this.spillRun());
  }

  /** Takes a chunk of LF-ended lines; it may begin and end inside a line. */
  push(chunk: Uint8Array): Promise<void> {
    return this.collector.push(chunk);
  }

  /** Call once, after the last chunk. */
  end(): Promise<void> {
    return this.collector.end();
  }

  get records(): number {
    return this.collector.records;
  }

  get bytes(): number {
    return this.collector.bytes;
  }

  get digest(): string {
    return this.collector.digest;
  }

  /** Writes one segment a partition; call once, after the end. */
  async writeTo(writer: RunWriter): Promise<void> {
    await this.each(async (pairs, worthIt) => {
      await this.write(pairs, writer, worthIt);
      await writer.endSegment();
    });
  }

  /**
   * Hands out the pairs of each partition in order; call once, after the end.
   * @param take `worthIt`: there is something to combine.
   */
  async each(take: (pairs: SortedPairs, worthIt: boolean) => Promise<void>): Promise<void> {
    if (this.runs.length === 0) return this.collector.drain(take);
    if (!this.collector.empty) await this.spillRun();
    const { order, partitions } = this.options;
    for (let partition = 0; partition < partitions; partition += 1) {
      const segments = this.runs.flatMap((run) => run[partition] ?? []);
      const pairs = mergedPairs(segments, order, this.spill);
      await take(pairs, this.runs.length >= COMBINE_RUNS);
    }
  }

  private async spillRun(): Promise<void> {
    const segments = await this.spill.write((writer) =>
      this.collector.drain(async (pairs, some) => {
        await this.write(pairs, writer, some);
        await writer.endSegment();
      }),
    );
    this.runs.push(segments);
  }

  private async write(pairs: SortedPairs, writer: RunWriter, worthIt: boolean): Promise<void> {
    if (this.combine !== undefined && worthIt) await this.combine(pairs, writer);
    else await pairs.give(OUTPUT.records, (block) => writer.putBlock(block), writer.blockBytes);
  }

  [Symbol.dispose](): void {
    this.collector[Symbol.dispose]();
  }
}
