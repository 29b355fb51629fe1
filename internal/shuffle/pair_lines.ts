import type { PairFormat } from "../model/contract.ts";
import { MrError } from "../model/errors.ts";

const LF = 10;
const HASH_SEED = 0x811c9dc5 | 0;
const HASH_PRIME = 0x01000193;

/** Takes pairs as lines `key SEPARATOR value`. */
export interface PairTaker {
  /** False: no room. `makeRoom`, then the same again. Never waits, so that callers can loop tightly. */
  add(from: Uint8Array, start: number, end: number, keyBytes: number, hash: number): boolean;
  makeRoom(): Promise<void>;
}

export interface PairLinesOptions {
  /** How the script's lines are cut. */
  format: PairFormat;
  /** Between key and value of the lines that are passed on: what a reducer will read. */
  separator: string;
  /** A longer line is refused, in bytes. */
  lineBytesMax: number;
}

/**
 * Cuts a script's stdout (LF-ended lines) into pairs. A line with fewer separators
 * than its key has fields is a key with an empty value.
 */
export class PairLines {
  records = 0;
  bytes = 0;
  /** Sums over the hashes of all records: the same for the same records in any order. */
  private sums = [0, 0];
  private readonly taker: PairTaker;
  private readonly lineBytesMax: number;
  private readonly from: Buffer;
  private readonly to: Buffer;
  private readonly keyFields: number;
  /** The byte that ends a key where lines can be passed on as they are; -1: they cannot. */
  private readonly plain: number;
  private carry: Uint8Array[] = [];
  private carryBytes = 0;
  private scratch = Buffer.allocUnsafe(4096);

  constructor(options: PairLinesOptions, taker: PairTaker) {
    this.taker = taker;
    this.lineBytesMax = options.lineBytesMax;
    this.from = Buffer.from(options.format.separator);
    this.to = Buffer.from(options.separator);
    this.keyFields = options.format.keyFields;
    const same = this.from.equals(this.to) && this.from.length === 1;
    this.plain = same ? (this.from[0] as number) : -1;
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

  /** Call once, after the last chunk. */
  async end(): Promise<void> {
    if (this.carryBytes > 0) await this.push(Uint8Array.of(LF));
  }

  /** Of all records so far, whatever their order. */
  get digest(): string {
    const words = this.sums.map((word) => (word >>> 0).toString(16).padStart(8, "0"));
    return `${this.records}-${this.bytes}-${words.join("")}`;
  }

  private keep(part: Uint8Array): void {
    this.carry.push(Buffer.from(part));
    this.carryBytes += part.length;
    if (this.carryBytes > this.lineBytesMax)
      throw new MrError(
        "user",
        `the script printed a line of more than ${this.lineBytesMax} bytes`,
      );
  }

  /** Adds the whole lines from `from` on; returns where the unfinished one begins. */
  private addLines(chunk: Uint8Array, from: number): Promise<number> {
    return this.plain < 0 ? this.addRewritten(chunk, from) : this.addPlain(chunk, from);
  }

  private async addPlain(chunk: Uint8Array, from: number): Promise<number> {
    const { plain, keyFields, taker } = this;
    let start = from;
    let keyEnd = -1;
    let fields = keyFields;
    let hash = HASH_SEED;
    let [sum = 0, mixed = 0] = this.sums;
    for (let i = from; i < chunk.length; i += 1) {
      const byte = chunk[i] as number;
      if (byte !== LF) {
        if (byte === plain && keyEnd < 0) {
          fields -= 1;
          if (fields === 0) keyEnd = i;
        }
        hash = Math.imul(hash ^ byte, HASH_PRIME);
        continue;
      }
      this.records += 1;
      const full = keyEnd < 0 ? Math.imul(hash ^ plain, HASH_PRIME) : hash;
      sum = (sum + full) | 0;
      mixed = (mixed + mix(full)) | 0;
      const added =
        keyEnd < 0
          ? this.addBareKey(chunk, start, i, full)
          : taker.add(chunk, start, i, keyEnd - start, hash);
      if (!added) {
        await taker.makeRoom();
        if (keyEnd < 0) this.addBareKey(chunk, start, i, full);
        else taker.add(chunk, start, i, keyEnd - start, hash);
      }
      start = i + 1;
      keyEnd = -1;
      fields = keyFields;
      hash = HASH_SEED;
    }
    this.sums = [sum, mixed];
    return start;
  }

  /** The separator is always there, also before an empty value. */
  private addBareKey(chunk: Uint8Array, start: number, end: number, hash: number): boolean {
    const length = end - start;
    this.reserve(length + 1);
    this.scratch.set(chunk.subarray(start, end), 0);
    this.scratch[length] = this.plain;
    return this.taker.add(this.scratch, 0, length + 1, length, hash);
  }

  /** Lines whose separator is a longer one, or another one than reducers read. */
  private async addRewritten(chunk: Uint8Array, from: number): Promise<number> {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    let start = from;
    for (let end = bytes.indexOf(LF, start); end >= 0; end = bytes.indexOf(LF, start)) {
      const keyBytes = this.keyBytesOf(bytes.subarray(start, end));
      const valueStart = Math.min(end, start + keyBytes + this.from.length);
      const length = keyBytes + this.to.length + (end - valueStart);
      this.reserve(length);
      this.scratch.set(bytes.subarray(start, start + keyBytes), 0);
      this.scratch.set(this.to, keyBytes);
      this.scratch.set(bytes.subarray(valueStart, end), keyBytes + this.to.length);
      const hash = hashOf(this.scratch, length);
      this.records += 1;
      this.sums = [((this.sums[0] ?? 0) + hash) | 0, ((this.sums[1] ?? 0) + mix(hash)) | 0];
      if (!this.taker.add(this.scratch, 0, length, keyBytes, hash)) {
        await this.taker.makeRoom();
        this.taker.add(this.scratch, 0, length, keyBytes, hash);
      }
      start = end + 1;
    }
    return start;
  }

  private keyBytesOf(line: Buffer): number {
    const end = keyEndOf(line, this.from, this.keyFields);
    return end < 0 ? line.length : end;
  }

  private reserve(length: number): void {
    if (this.scratch.length < length) this.scratch = Buffer.allocUnsafe(length * 2);
  }
}

/** Where the key of a line ends: at the `keyFields`-th separator; -1: there are fewer. */
export function keyEndOf(line: Buffer, separator: Buffer, keyFields: number): number {
  let at = line.indexOf(separator);
  for (let left = keyFields - 1; left > 0 && at >= 0; left -= 1)
    at = line.indexOf(separator, at + separator.length);
  return at;
}

function hashOf(bytes: Uint8Array, length: number): number {
  let hash = HASH_SEED;
  for (let i = 0; i < length; i += 1) hash = Math.imul(hash ^ (bytes[i] as number), HASH_PRIME);
  return hash;
}

function mix(hash: number): number {
  return Math.imul(hash ^ (hash >>> 15), hash | 1);
}
