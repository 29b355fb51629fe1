import type { LineOrder } from "./key_order.ts";
import type { PartitionOf } from "./partitioner.ts";
import type { RecordSink } from "./record_sink.ts";
import { sortEntries } from "./sort_entries.ts";

/**
 * The map side's memory: takes records as they come, keeps equal ones once with
 * their count, and hands them out sorted by partition and key. Records never
 * become JS strings or objects; they lie in one arena.
 *
 * Where most records are distinct, looking for equals is given up.
 */
const PROBE_RECORDS = 50_000;
const EMPTY = -1;
const ENTRIES_MIN = 1 << 14;
const ARENA_MIN = 1 << 20;

type Feed = (sink: RecordSink) => Promise<void>;

export interface SortBufferOptions {
  partitions: number;
  partitionOf: PartitionOf;
  order: LineOrder;
  /** What the arena and its entries may take together, in bytes. */
  sortBytes: number;
}

export class SortBuffer {
  private readonly options: SortBufferOptions;
  private readonly bytesMax: number;
  private arena: Buffer;
  private used = 0;
  /** Entry i: where its line lies, and how long line and key are. */
  private offset = new Uint32Array(ENTRIES_MIN);
  private length = new Uint32Array(ENTRIES_MIN);
  private keyLength = new Uint32Array(ENTRIES_MIN);
  private count = new Float64Array(ENTRIES_MIN);
  private hash = new Int32Array(ENTRIES_MIN);
  private table = new Int32Array(2 * ENTRIES_MIN).fill(EMPTY);
  private entries = 0;
  private records = 0;
  private counting = true;

  constructor(options: SortBufferOptions) {
    this.options = options;
    this.bytesMax = options.sortBytes;
    this.arena = Buffer.allocUnsafe(Math.min(ARENA_MIN, options.sortBytes));
  }

  get empty(): boolean {
    return this.entries === 0;
  }

  /**
   * Adds a line `key TAB value` (the TAB is there even if the value is empty),
   * given its hash. False: no room; write the buffer out and add it again. An
   * empty buffer takes a line of any size.
   */
  add(from: Uint8Array, start: number, end: number, keyBytes: number, hash: number): boolean {
    const length = end - start;
    let slot = 0;
    if (this.counting) {
      slot = this.find(from, start, length, keyBytes, hash);
      const entry = this.table[slot] as number;
      if (entry !== EMPTY) {
        this.count[entry] = (this.count[entry] as number) + 1;
        this.records += 1;
        return true;
      }
    }
    if (!this.reserve(length)) return false;
    if (this.counting) {
      // The table may have been rebuilt.
      slot = this.find(from, start, length, keyBytes, hash);
      this.table[slot] = this.entries;
    }
    const at = this.used;
    if (length < 32)
      for (let i = 0; i < length; i += 1) this.arena[at + i] = from[start + i] as number;
    else this.arena.set(from.subarray(start, end), at);
    const entry = this.entries++;
    this.offset[entry] = at;
    this.length[entry] = length;
    this.keyLength[entry] = keyBytes;
    this.count[entry] = 1;
    this.hash[entry] = hash;
    this.used += length;
    this.records += 1;
    if (this.records === PROBE_RECORDS && this.entries > PROBE_RECORDS / 2) this.counting = false;
    return true;
  }

  /** The table slot of an equal line, or the free one where it belongs. */
  private find(
    from: Uint8Array,
    start: number,
    length: number,
    keyBytes: number,
    hash: number,
  ): number {
    const mask = this.table.length - 1;
    let slot = (hash ^ (hash >>> 15)) & mask;
    while (true) {
      const entry = this.table[slot] as number;
      if (entry === EMPTY) return slot;
      if (
        this.hash[entry] === hash &&
        this.length[entry] === length &&
        this.keyLength[entry] === keyBytes &&
        this.equal(this.offset[entry] as number, from, start, length)
      )
        return slot;
      slot = (slot + 1) & mask;
    }
  }

  private equal(at: number, from: Uint8Array, start: number, length: number): boolean {
    const { arena } = this;
    if (length > 64) return arena.compare(from, start, start + length, at, at + length) === 0;
    for (let i = 0; i < length; i += 1) if (arena[at + i] !== from[start + i]) return false;
    return true;
  }

  /** Makes room for one more line of this length, within the budget. */
  private reserve(length: number): boolean {
    const bytesPerEntry = 4 + 4 + 4 + 8 + 4 + 8;
    const need = this.used + length;
    if (this.entries > 0 && need + (this.entries + 1) * bytesPerEntry > this.bytesMax) return false;
    if (need > this.arena.length) {
      const arena = Buffer.allocUnsafe(
        Math.max(need, Math.min(this.arena.length * 2, this.bytesMax)),
      );
      this.arena.copy(arena, 0, 0, this.used);
      this.arena = arena;
    }
    if (this.entries === this.offset.length) this.growEntries();
    return true;
  }

  private growEntries(): void {
    const size = this.offset.length * 2;
    this.offset = enlarged(this.offset, new Uint32Array(size));
    this.length = enlarged(this.length, new Uint32Array(size));
    this.keyLength = enlarged(this.keyLength, new Uint32Array(size));
    this.count = enlarged(this.count, new Float64Array(size));
    this.hash = enlarged(this.hash, new Int32Array(size));
    if (!this.counting) return;
    this.table = new Int32Array(2 * size).fill(EMPTY);
    const mask = this.table.length - 1;
    for (let entry = 0; entry < this.entries; entry += 1) {
      const hash = this.hash[entry] as number;
      let slot = (hash ^ (hash >>> 15)) & mask;
      while (this.table[slot] !== EMPTY) slot = (slot + 1) & mask;
      this.table[slot] = entry;
    }
  }

  /**
   * Hands all records out, partition by partition in order, and empties the buffer.
   * @param each is called once a partition; `some`: there are records in it.
   */
  async drain(each: (feed: Feed, some: boolean) => Promise<void>): Promise<void> {
    const partition = new Uint16Array(this.entries);
    for (let entry = 0; entry < this.entries; entry += 1) {
      const start = this.offset[entry] as number;
      const end = start + (this.keyLength[entry] as number);
      partition[entry] = this.options.partitionOf(this.arena, start, end);
    }
    const { arena, offset, length, keyLength, entries } = this;
    const { order: by, partitions } = this.options;
    const order = sortEntries({ arena, offset, length, keyLength, partition, entries }, by);
    let next = 0;
    for (let segment = 0; segment < partitions; segment += 1) {
      const first = next;
      while (next < order.length && partition[order[next] as number] === segment) next += 1;
      const part = order.subarray(first, next);
      await each((sink) => this.feed(part, sink), part.length > 0);
    }
    this.clear();
  }

  private async feed(order: Uint32Array, sink: RecordSink): Promise<void> {
    const { arena, offset, length, keyLength, count } = this;
    for (const entry of order) {
      const start = offset[entry] as number;
      const end = start + (length[entry] as number);
      if (sink.add(count[entry] as number, keyLength[entry] as number, arena, start, end))
        await sink.flush();
    }
    await sink.flush();
  }

  private clear(): void {
    if (this.arena.length > this.bytesMax) this.arena = Buffer.allocUnsafe(ARENA_MIN);
    this.used = 0;
    this.entries = 0;
    this.records = 0;
    this.counting = true;
    // The table stood still while nothing was counted; it must hold all entries there is room for.
    if (this.table.length < 2 * this.offset.length)
      this.table = new Int32Array(2 * this.offset.length);
    this.table.fill(EMPTY);
  }
}

function enlarged<T extends Uint32Array | Float64Array | Int32Array>(old: T, into: T): T {
  into.set(old as never);
  return into;
}
