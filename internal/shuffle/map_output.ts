import { MrError } from "../model/errors.ts";
import { RunWriter, type Sink } from "./run_format.ts";
import { SortBuffer } from "./sort_buffer.ts";
import { mergeSegments, type OpenSegment, type SpillFolder } from "./spill.ts";

const LF = 10;
const TAB = 9;
const HASH_SEED = 0x811c9dc5 | 0;
const HASH_PRIME = 0x01000193;

export interface MapOutputOptions {
  partitions: number;
  /** Memory for sorting, in bytes; more is spilled. */
  sortBytes: number;
  /** A longer line is refused, in bytes. */
  lineBytesMax: number;
  compress: boolean;
}

/**
 * Turns a mapper's stdout (LF-ended lines) into one run of R sorted segments.
 * A line without a TAB is a key with an empty value.
 */
export class MapOutput {
  records = 0;
  bytes = 0;
  /** Sums over the hashes of all records: the same for the same records in any order. */
  private sums = [0, 0];
  private readonly options: MapOutputOptions;
  private readonly spill: SpillFolder;
  private readonly buffer: SortBuffer;
  private readonly runs: OpenSegment[][] = [];
  private carry: Uint8Array[] = [];
  private carryBytes = 0;
  private scratch = Buffer.allocUnsafe(4096);

  constructor(options: MapOutputOptions, spill: SpillFolder) {
    this.options = options;
    this.spill = spill;
    this.buffer = new SortBuffer(options.partitions, options.sortBytes);
  }

  /** Takes a chunk of LF-ended lines; it may begin and end inside a line. */
  async push(chunk: Uint8Array): Promise<void> {
    this.bytes += chunk.length;
    let at = 0;
    if (this.carryBytes > 0) {
      const lf = chunk.indexOf(LF);
      this.keep(lf < 0 ? chunk : chunk.subarray(0, lf));
      if (lf < 0) return;
      const line = Buffer.concat([...this.carry, Uint8Array.of(LF)]);
      this.carry = [];
      this.carryBytes = 0;
      await this.addLines(line, 0);
      at = lf + 1;
    }
    const end = await this.addLines(chunk, at);
    if (end < chunk.length) this.keep(chunk.subarray(end));
  }

  private keep(part: Uint8Array): void {
    this.carry.push(Buffer.from(part));
    this.carryBytes += part.length;
    if (this.carryBytes > this.options.lineBytesMax)
      throw new MrError(
        "user",
        `the script printed a line of more than ${this.options.lineBytesMax} bytes`,
      );
  }

  /** Adds the whole lines from `from` on; returns where the unfinished one begins. */
  private async addLines(chunk: Uint8Array, from: number): Promise<number> {
    let start = from;
    let tab = -1;
    let hash = HASH_SEED;
    let [sum = 0, mixed = 0] = this.sums;
    for (let i = from; i < chunk.length; i += 1) {
      const byte = chunk[i] as number;
      if (byte !== LF) {
        if (byte === TAB && tab < 0) tab = i;
        hash = Math.imul(hash ^ byte, HASH_PRIME);
        continue;
      }
      this.records += 1;
      const full = tab < 0 ? Math.imul(hash ^ TAB, HASH_PRIME) : hash;
      sum = (sum + full) | 0;
      mixed = (mixed + Math.imul(full ^ (full >>> 15), full | 1)) | 0;
      const added =
        tab < 0
          ? this.addBareKey(chunk, start, i, full)
          : this.buffer.add(chunk, start, i, tab - start, hash);
      if (!added) {
        await this.spillBuffer();
        if (tab < 0) this.addBareKey(chunk, start, i, full);
        else this.buffer.add(chunk, start, i, tab - start, hash);
      }
      start = i + 1;
      tab = -1;
      hash = HASH_SEED;
    }
    this.sums = [sum, mixed];
    return start;
  }

  private addBareKey(chunk: Uint8Array, start: number, end: number, hash: number): boolean {
    const length = end - start;
    if (this.scratch.length <= length) this.scratch = Buffer.allocUnsafe(length * 2);
    this.scratch.set(chunk.subarray(start, end), 0);
    this.scratch[length] = TAB;
    return this.buffer.add(this.scratch, 0, length + 1, length, hash);
  }

  private async spillBuffer(): Promise<void> {
    this.runs.push(await this.spill.write((writer) => this.buffer.writeTo(writer)));
  }

  /** Of all records so far, whatever their order. */
  get digest(): string {
    const words = this.sums.map((word) => (word >>> 0).toString(16).padStart(8, "0"));
    return `${this.records}-${this.bytes}-${words.join("")}`;
  }

  /** Writes the run; call once, after the last chunk. */
  async writeTo(sink: Sink): Promise<{ size: number; indexOffset: number }> {
    if (this.carryBytes > 0) await this.push(Uint8Array.of(LF));
    const writer = new RunWriter(sink, this.options.compress);
    if (this.runs.length === 0) await this.buffer.writeTo(writer);
    else {
      if (!this.buffer.empty) await this.spillBuffer();
      for (let partition = 0; partition < this.options.partitions; partition += 1) {
        const segments = this.runs.flatMap((run) => run[partition] ?? []);
        await mergeSegments(segments, writer, this.spill);
        await writer.endSegment();
      }
    }
    const indexOffset = await writer.end();
    return { size: writer.size, indexOffset };
  }
}
