import type { LineOrder } from "./key_order.ts";
import type { PairTaker } from "./pair_lines.ts";
import type { PartitionOf } from "./partitioner.ts";
import type { RecordSink } from "./record_sink.ts";
import type { RunWriter } from "./run_format.ts";
import { SortBuffer } from "./sort_buffer.ts";
import { mergeSegments, type OpenSegment, type SpillFolder } from "./spill.ts";

/** Writes records in order into a sink. */
export type Feed = (sink: RecordSink) => Promise<void>;

/** Makes fewer pairs of the sorted ones of a partition, in the same order. */
export type Combine = (feed: Feed, sink: RecordSink) => Promise<void>;

export interface PairSorterOptions {
  partitions: number;
  partitionOf: PartitionOf;
  order: LineOrder;
  /** Memory for sorting, in bytes; more is spilled. */
  sortBytes: number;
  combine?: Combine | undefined;
}

/** So many spilled runs are worth another pass of the combiner when they are merged. */
const COMBINE_RUNS = 3;

/** Takes pairs as they come; gives them sorted, by partition, combined where there is a combiner. */
export class PairSorter implements PairTaker {
  private readonly options: PairSorterOptions;
  private readonly spill: SpillFolder;
  private readonly buffer: SortBuffer;
  private readonly runs: OpenSegment[][] = [];

  constructor(options: PairSorterOptions, spill: SpillFolder) {
    this.options = options;
    this.spill = spill;
    this.buffer = new SortBuffer(options);
  }

  add(from: Uint8Array, start: number, end: number, keyBytes: number, hash: number): boolean {
    return this.buffer.add(from, start, end, keyBytes, hash);
  }

  async makeRoom(): Promise<void> {
    this.runs.push(await this.spill.write((writer) => this.writeBuffer(writer)));
  }

  /** Writes one segment a partition; call once, after the last pair. */
  async writeTo(writer: RunWriter): Promise<void> {
    if (this.runs.length === 0) return this.writeBuffer(writer);
    if (!this.buffer.empty) await this.makeRoom();
    for (let partition = 0; partition < this.options.partitions; partition += 1) {
      await this.mergeInto(writer, partition);
      await writer.endSegment();
    }
  }

  /** All pairs in order into any sink, where there is but one partition; call once. */
  async feed(sink: RecordSink): Promise<void> {
    if (this.runs.length === 0)
      return this.buffer.drain(async (feed, some) => {
        if (some) await this.combined(feed, sink, true);
      });
    if (!this.buffer.empty) await this.makeRoom();
    await this.mergeInto(sink, 0);
  }

  private async writeBuffer(writer: RunWriter): Promise<void> {
    await this.buffer.drain(async (feed, some) => {
      if (some) await this.combined(feed, writer, true);
      await writer.endSegment();
    });
  }

  private async mergeInto(sink: RecordSink, partition: number): Promise<void> {
    const { order } = this.options;
    const segments = this.runs.flatMap((run) => run[partition] ?? []);
    const feed: Feed = (into) => mergeSegments(segments, into, this.spill, order);
    await this.combined(feed, sink, this.runs.length >= COMBINE_RUNS);
  }

  private combined(feed: Feed, sink: RecordSink, worthIt: boolean): Promise<void> {
    const { combine } = this.options;
    return combine === undefined || !worthIt ? feed(sink) : combine(feed, sink);
  }
}
