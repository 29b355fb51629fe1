import { crc32 } from "node:zlib";
import { MrError } from "../model/errors.ts";
import type { LineOrder } from "./key_order.ts";

/**
 * The index of a run that is one sorted segment, to be cut by ranges of keys when all
 * maps are done: where each block begins, and its first key.
 *
 *   entry   u64 offset | u16 key bytes (65535: not known) | key
 *   index   entries | u64 where the last block ends | u32 crc32 of all that
 */
const UNKNOWN = 0xffff;
/** Longer keys are cut here: their beginning sorts before them, and that is enough. */
export const INDEX_KEY_BYTES = 256;

/** A longer index tells of every second block only, and so on: the leader reads those of all maps (LIMIT.runIndexBytes). */
const ENTRIES_MAX = 100_000;

export interface KeyIndexEntry {
  offset: number;
  /** A lower bound of the block's keys; undefined: none is known. */
  key: Buffer | undefined;
}

export interface KeyIndex {
  blocks: KeyIndexEntry[];
  end: number;
}

/** A half-open range of keys; undefined: no bound. */
export interface KeyRange {
  from: Buffer | undefined;
  to: Buffer | undefined;
}

export class KeyIndexWriter {
  /** Blocks are as small as this, so that ranges need not read much beyond their borders. */
  readonly blockBytes: number;
  private readonly cuttable: boolean;
  private entries: Buffer[] = [];
  private blocks = 0;
  /** One of so many blocks is in the index. */
  private every = 1;

  constructor(blockBytes: number, order: Pick<LineOrder, "byBytes">) {
    this.blockBytes = blockBytes;
    this.cuttable = order.byBytes;
  }

  beginBlock(offset: number, key: Buffer): void {
    this.blocks += 1;
    if ((this.blocks - 1) % this.every !== 0) return;
    if (this.entries.length === ENTRIES_MAX) {
      this.entries = this.entries.filter((_, i) => i % 2 === 0);
      this.every *= 2;
      if ((this.blocks - 1) % this.every !== 0) return;
    }
    const isKnown = key.length <= INDEX_KEY_BYTES || this.cuttable;
    const length = isKnown ? Math.min(key.length, INDEX_KEY_BYTES) : 0;
    const entry = Buffer.allocUnsafe(10 + length);
    entry.writeBigUInt64LE(BigInt(offset), 0);
    entry.writeUInt16LE(isKnown ? length : UNKNOWN, 8);
    entry.set(key.subarray(0, length), 10);
    this.entries.push(entry);
  }

  end(offset: number): Buffer {
    const end = Buffer.alloc(8);
    end.writeBigUInt64LE(BigInt(offset));
    const bytes = Buffer.concat([...this.entries, end]);
    const sum = Buffer.alloc(4);
    sum.writeUInt32LE(crc32(bytes));
    return Buffer.concat([bytes, sum]);
  }
}

/** @throws MrError `corrupt` unless it is whole. */
export function parseKeyIndex(bytes: Buffer): KeyIndex {
  const body = bytes.subarray(0, Math.max(0, bytes.length - 4));
  if (bytes.length < 12 || crc32(body) !== bytes.readUInt32LE(body.length))
    throw new MrError("corrupt", "the key index of a map output is damaged");
  const blocks: KeyIndexEntry[] = [];
  let at = 0;
  while (at < body.length - 8) {
    const length = body.readUInt16LE(at + 8);
    const stop = at + 10 + (length === UNKNOWN ? 0 : length);
    const key = length === UNKNOWN ? undefined : body.subarray(at + 10, stop);
    blocks.push({ offset: Number(body.readBigUInt64LE(at)), key });
    at = stop;
  }
  return { blocks, end: Number(body.readBigUInt64LE(at)) };
}

/** The bytes of the blocks that may hold keys of the range. */
export function bytesOfRange(
  { blocks, end }: KeyIndex,
  { from, to }: KeyRange,
  order: LineOrder,
): { offset: number; bytes: number } {
  // All keys of a block come before, or are, the first one of the next.
  let first = 0;
  if (from !== undefined)
    blocks.forEach(({ key }, i) => {
      if (key !== undefined && before(order, key, from)) first = i;
    });
  let last = blocks.length;
  if (to !== undefined) {
    const beyond = blocks.findIndex(({ key }) => key !== undefined && !before(order, key, to));
    if (beyond >= 0) last = beyond;
  }
  if (first >= last) return { offset: 0, bytes: 0 };
  const offset = blocks[first]?.offset ?? 0;
  return { offset, bytes: (blocks[last]?.offset ?? end) - offset };
}

/** What one map output tells of the spread of keys. */
export interface KeySample {
  key: Buffer;
  /** Bytes of the blocks that it stands for. */
  bytes: number;
}

/** Samples of about as many blocks as asked for, evenly spread. */
export function samplesOf({ blocks, end }: KeyIndex, samplesMax: number): KeySample[] {
  const stride = Math.max(1, Math.ceil(blocks.length / samplesMax));
  const samples: KeySample[] = [];
  for (let i = 0; i < blocks.length; i += stride) {
    const { offset, key } = blocks[i] as KeyIndexEntry;
    const next = blocks[i + stride]?.offset ?? end;
    // A copy: the whole index need not stay for it.
    if (key !== undefined) samples.push({ key: Buffer.from(key), bytes: next - offset });
  }
  return samples;
}

/**
 * The keys at which `partitions` ranges of about equal bytes begin, without the first.
 * @param sorted by key.
 */
export function cutRanges(sorted: KeySample[], partitions: number): Buffer[] {
  const total = sorted.reduce((sum, { bytes }) => sum + bytes, 0);
  const cuts: Buffer[] = [];
  let before = 0;
  for (const { key, bytes } of sorted) {
    // A key that fills several ranges has them all: the others are empty.
    while (cuts.length + 1 < partitions && before >= (total * (cuts.length + 1)) / partitions)
      cuts.push(key);
    before += bytes;
  }
  const last = sorted.at(-1)?.key ?? Buffer.alloc(0);
  while (cuts.length + 1 < partitions) cuts.push(last);
  return cuts;
}

function before(order: LineOrder, a: Buffer, b: Buffer): boolean {
  return order.compareKeys(a, 0, a.length, b, 0, b.length) < 0;
}
