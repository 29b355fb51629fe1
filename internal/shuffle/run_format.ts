import { crc32, constants as zlib, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { MrError } from "../model/errors.ts";
import type { KeyIndexWriter } from "./key_index.ts";
import { LARGE_BYTES, type LargeShare, UNCOUNTED } from "./large_memory.ts";
import type { RecordSink } from "./record_sink.ts";

/**
 * A run: R segments, one a partition, then an index. A segment is a sequence of
 * blocks of sorted records:
 *
 *   block   u32 flags (1: zstd) | u32 stored bytes | u32 raw bytes | u32 crc32 of all else | bytes
 *   record  varint count | varint key bytes | varint line bytes | line
 *   index   R x (u64 offset | u64 bytes | u32 crc32 of these 16)
 *           or, where the partitions are cut later, by ranges of keys: key_index.ts
 *
 * A record's line is `key TAB value` without LF, and `count` says how often it
 * occurs: the order of values inside a key is unspecified, so equal lines need
 * not be kept apart. A reducer reads its own index entry alone.
 */
export const BLOCK_BYTES = 256 * 1024;
const HEADER_BYTES = 16;
export const INDEX_ENTRY_BYTES = 20;
/** A block is full somewhat beyond its size. */
const ROOM_BYTES = 4_096;
const FLAG_ZSTD = 1;
/** A block is one record at least; beyond this its header is taken for damaged. */
const BLOCK_BYTES_MAX = 1024 * 1024 * 1024;

/** Where bytes of a run go; resolves when more may follow. */
export type Sink = (chunk: Uint8Array) => Promise<void>;

export interface IndexEntry {
  offset: number;
  bytes: number;
}

export interface RunOptions {
  compress: boolean;
  /** Has an index by key instead of one by partition. */
  keyIndex?: KeyIndexWriter;
}

/** Writes one run, segment by segment. */
export class RunWriter {
  readonly index: IndexEntry[] = [];
  private readonly sink: Sink;
  private readonly compress: boolean;
  private readonly keyIndex: KeyIndexWriter | undefined;
  private block = Buffer.allocUnsafe(0);
  private filled = 0;
  /** Where blocks begin in `block` after its first: whoever adds may be unable to flush for long. */
  private starts: number[] = [];
  private blockStart = 0;
  private written = 0;
  private segmentStart = 0;

  constructor(sink: Sink, { compress, keyIndex }: RunOptions) {
    this.sink = sink;
    this.compress = compress;
    this.keyIndex = keyIndex;
  }

  /** About so many bytes of records make a block. */
  get blockBytes(): number {
    return this.keyIndex?.blockBytes ?? BLOCK_BYTES;
  }

  /** Bytes written so far. */
  get size(): number {
    return this.written;
  }

  /** Adds a record; true when `flush` is due. Never waits, so that callers can loop tightly. */
  add(count: number, keyBytes: number, from: Uint8Array, start: number, end: number): boolean {
    const length = end - start;
    if (this.filled - this.blockStart >= this.blockBytes) {
      this.blockStart = this.filled;
      this.starts.push(this.filled);
    }
    const need = this.filled + length + 15;
    if (need > this.block.length) this.grow(need);
    let at = putVarint(this.block, this.filled, count);
    at = putVarint(this.block, at, keyBytes);
    at = putVarint(this.block, at, length);
    this.block.set(from.subarray(start, end), at);
    this.filled = at + length;
    return this.filled >= this.blockBytes;
  }

  private gather(records: Buffer): void {
    const need = this.filled + records.length;
    if (need > this.block.length) this.grow(need);
    this.block.set(records, this.filled);
    this.filled = need;
  }

  private grow(need: number): void {
    const block = Buffer.allocUnsafe(
      Math.max(need, this.blockBytes + ROOM_BYTES, this.block.length * 2),
    );
    this.block.copy(block, 0, 0, this.filled);
    this.block = block;
  }

  async flush(): Promise<void> {
    if (this.filled === 0) return;
    const { block, filled, starts } = this;
    [this.filled, this.blockStart, this.starts] = [0, 0, []];
    let from = 0;
    for (const to of [...starts, filled]) {
      await this.store(block.subarray(from, to));
      from = to;
    }
    if (this.block.length > 4 * Math.max(BLOCK_BYTES, this.blockBytes))
      this.block = Buffer.allocUnsafe(0);
  }

  /** Adds sorted records that make a block already; after those that were added one by one. */
  async putBlock(raw: Buffer): Promise<void> {
    // Blocks may have become larger since it was asked for.
    if (this.keyIndex !== undefined && raw.length < this.blockBytes / 2) {
      this.gather(raw);
      if (this.filled >= this.blockBytes) await this.flush();
      return;
    }
    await this.flush();
    await this.store(raw);
  }

  private async store(raw: Buffer): Promise<void> {
    this.keyIndex?.beginBlock(this.written, firstKey(raw));
    const stored = this.compress ? compressed(raw) : raw;
    const header = Buffer.allocUnsafe(HEADER_BYTES);
    header.writeUInt32LE(this.compress ? FLAG_ZSTD : 0, 0);
    header.writeUInt32LE(stored.length, 4);
    header.writeUInt32LE(raw.length, 8);
    header.writeUInt32LE(crc32(stored, crc32(header.subarray(0, 12))), 12);
    await this.sink(header);
    await this.sink(stored);
    this.written += HEADER_BYTES + stored.length;
  }

  async endSegment(): Promise<void> {
    await this.flush();
    this.index.push({ offset: this.segmentStart, bytes: this.written - this.segmentStart });
    this.segmentStart = this.written;
  }

  /** Writes the index; returns where it begins. */
  async end(): Promise<number> {
    const indexOffset = this.written;
    const bytes = this.keyIndex?.end(indexOffset) ?? this.partitionIndex();
    await this.sink(bytes);
    this.written += bytes.length;
    return indexOffset;
  }

  private partitionIndex(): Buffer {
    const bytes = Buffer.alloc(this.index.length * INDEX_ENTRY_BYTES);
    this.index.forEach((entry, i) => {
      const at = i * INDEX_ENTRY_BYTES;
      bytes.writeBigUInt64LE(BigInt(entry.offset), at);
      bytes.writeBigUInt64LE(BigInt(entry.bytes), at + 8);
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + 16)), at + 16);
    });
    return bytes;
  }
}

export function parseIndexEntry(bytes: Buffer): IndexEntry {
  if (bytes.length !== INDEX_ENTRY_BYTES || crc32(bytes.subarray(0, 16)) !== bytes.readUInt32LE(16))
    throw new MrError("corrupt", "the index of a map output is damaged");
  return {
    offset: Number(bytes.readBigUInt64LE(0)),
    bytes: Number(bytes.readBigUInt64LE(8)),
  };
}

/** Passes a segment's bytes on, and fails where there are fewer than its index says. */
export async function* wholeSegment(
  bytes: number,
  chunks: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  let rest = bytes;
  for await (const chunk of chunks) {
    rest -= chunk.length;
    yield chunk;
  }
  if (rest !== 0) throw new MrError("corrupt", "a segment of a map output is not whole");
}

/**
 * Cuts a stream of bytes into verified, decompressed blocks. A block is done with when the next
 * is asked for: they are put together in the same memory.
 * @param memory what large ones are held from.
 */
export async function* readBlocks(
  chunks: AsyncIterable<Uint8Array>,
  memory: LargeShare = UNCOUNTED,
): AsyncIterable<Buffer> {
  using hold = memory.hold();
  let frame: Buffer = Buffer.allocUnsafe(HEADER_BYTES);
  let filled = 0;
  let need = HEADER_BYTES;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + need - filled);
      frame.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < need) break;
      if (need === HEADER_BYTES) {
        const stored = frame.readUInt32LE(4);
        // Zeros would pass for a block of nothing, and a run that ends there for whole.
        if (stored === 0 || stored > BLOCK_BYTES_MAX) throw damaged();
        need += stored;
        const isPacked = (frame.readUInt32LE(0) & FLAG_ZSTD) !== 0;
        await hold.add(need + (isPacked ? frame.readUInt32LE(8) : 0));
        if (frame.length < need) frame = enlarged(frame, need);
        continue;
      }
      yield openBlock(frame.subarray(0, need));
      hold[Symbol.dispose]();
      if (frame.length > LARGE_BYTES) frame = Buffer.allocUnsafe(HEADER_BYTES);
      filled = 0;
      need = HEADER_BYTES;
    }
  }
  if (filled > 0) throw new MrError("corrupt", "a map output ends inside a block");
}

function enlarged(frame: Buffer, bytes: number): Buffer {
  // Somewhat more: blocks are about as large as each other.
  const larger = Buffer.allocUnsafeSlow(bytes + ROOM_BYTES);
  frame.copy(larger, 0, 0, HEADER_BYTES);
  return larger;
}

function openBlock(bytes: Buffer): Buffer {
  const stored = bytes.subarray(HEADER_BYTES);
  if (crc32(stored, crc32(bytes.subarray(0, 12))) !== bytes.readUInt32LE(12)) throw damaged();
  const raw = (bytes.readUInt32LE(0) & FLAG_ZSTD) !== 0 ? decompressed(stored) : stored;
  if (raw.length !== bytes.readUInt32LE(8)) throw damaged();
  return raw;
}

function damaged(): MrError {
  return new MrError("corrupt", "a block of a map output does not match its checksum");
}

function compressed(raw: Buffer): Buffer {
  return zstdCompressSync(raw, { params: { [zlib.ZSTD_c_compressionLevel]: 1 } });
}

function decompressed(stored: Buffer): Buffer {
  try {
    return zstdDecompressSync(stored);
  } catch {
    throw damaged();
  }
}

function putVarint(into: Buffer, at: number, value: number): number {
  let rest = value;
  let next = at;
  while (rest > 127) {
    into[next++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  into[next] = rest;
  return next + 1;
}

/** The key of a block's first record. */
function firstKey(block: Buffer): Buffer {
  const cursor = { at: 0 };
  varint(block, cursor);
  const keyBytes = varint(block, cursor);
  varint(block, cursor);
  return block.subarray(cursor.at, cursor.at + keyBytes);
}

/** Hands on the records of a block, one by one. @throws MrError `corrupt` where one is not whole. */
export async function readRecords(block: Buffer, sink: RecordSink): Promise<void> {
  const cursor = { at: 0 };
  while (cursor.at < block.length) {
    const count = varint(block, cursor);
    const keyBytes = varint(block, cursor);
    const length = varint(block, cursor);
    const start = cursor.at;
    cursor.at += length;
    if (cursor.at > block.length || keyBytes > length) throw damaged();
    if (sink.add(count, keyBytes, block, start, cursor.at)) await sink.flush();
  }
}

function varint(block: Buffer, cursor: { at: number }): number {
  let value = 0;
  let scale = 1;
  let byte = 128;
  while (byte > 127) {
    if (cursor.at >= block.length) throw damaged();
    byte = block[cursor.at++] as number;
    value += (byte & 127) * scale;
    scale *= 128;
  }
  return value;
}
