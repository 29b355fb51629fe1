import { indexOfTerminator } from "./lines.ts";
import type { RecordLines } from "./split_reader.ts";

const LF = 10;
const CR = 13;
/** The most digits that an offset has. */
const DIGITS = 16;

/** Rewrites records as `OFFSET SEPARATOR record LF`, the offset being that of its first byte. */
export class OffsetLines implements RecordLines {
  private readonly separator: Buffer;
  /** Of the next byte of the input. */
  private offset: number;
  private inside = false;
  private afterCr = false;
  /** Used again by each call. */
  private out = Buffer.allocUnsafe(0);
  private size = 0;

  constructor(offset: number, separator: string) {
    this.separator = Buffer.from(separator);
    this.offset = offset;
  }

  /** What it returns is good until the next call. */
  push(chunk: Uint8Array): Uint8Array {
    this.size = 0;
    for (let at = 0; at < chunk.length; ) {
      if (this.afterCr && chunk[at] === LF) at += 1;
      this.afterCr = false;
      if (at >= chunk.length) break;
      const stop = indexOfTerminator(chunk, at);
      const end = stop < 0 ? chunk.length : stop;
      this.makeRoom(DIGITS + this.separator.length + end - at + 1);
      if (!this.inside) this.addOffset(this.offset + at);
      this.out.set(chunk.subarray(at, end), this.size);
      this.size += end - at;
      this.inside = stop < 0;
      if (stop < 0) break;
      this.out[this.size++] = LF;
      this.afterCr = chunk[stop] === CR;
      at = stop + 1;
    }
    this.offset += chunk.length;
    return this.out.subarray(0, this.size);
  }

  private addOffset(offset: number): void {
    this.size += this.out.write(String(offset), this.size, "latin1");
    this.out.set(this.separator, this.size);
    this.size += this.separator.length;
  }

  private makeRoom(bytes: number): void {
    const need = this.size + bytes;
    if (need <= this.out.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(need, 2 * this.out.length));
    this.out.copy(larger, 0, 0, this.size);
    this.out = larger;
  }

  end(): Uint8Array {
    return this.inside ? Uint8Array.of(LF) : new Uint8Array(0);
  }
}
