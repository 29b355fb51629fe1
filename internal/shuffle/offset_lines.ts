import { indexOfTerminator } from "./lines.ts";
import type { RecordLines } from "./split_reader.ts";

const LF = 10;
const CR = 13;

/** Rewrites records as `OFFSET SEPARATOR record LF`, the offset being that of its first byte. */
export class OffsetLines implements RecordLines {
  private readonly separator: string;
  /** Of the next byte of the input. */
  private offset: number;
  private inside = false;
  private afterCr = false;

  constructor(offset: number, separator: string) {
    this.offset = offset;
    this.separator = separator;
  }

  push(chunk: Uint8Array): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let at = 0; at < chunk.length; ) {
      if (this.afterCr && chunk[at] === LF) at += 1;
      this.afterCr = false;
      if (at >= chunk.length) break;
      if (!this.inside) parts.push(Buffer.from(`${this.offset + at}${this.separator}`));
      const stop = indexOfTerminator(chunk, at);
      this.inside = stop < 0;
      parts.push(chunk.subarray(at, stop < 0 ? chunk.length : stop));
      if (stop < 0) break;
      parts.push(Uint8Array.of(LF));
      this.afterCr = chunk[stop] === CR;
      at = stop + 1;
    }
    this.offset += chunk.length;
    return Buffer.concat(parts);
  }

  end(): Uint8Array {
    return this.inside ? Uint8Array.of(LF) : new Uint8Array(0);
  }
}
