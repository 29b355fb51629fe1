import type { RecordSink } from "./record_sink.ts";

const BUFFER_BYTES = 256 * 1024;

/** Writes each record's line, as often as it occurs, into a reducer's stdin. */
export class ReduceInput implements RecordSink {
  records = 0;
  private readonly write: (chunk: Uint8Array) => Promise<void>;
  private buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  private filled = 0;
  /** A record whose repeats did not all fit: the rest of them. */
  private left: { count: number; line: Uint8Array } | undefined;

  /** @param write takes the chunk before it resolves, so that it may be reused. */
  constructor(write: (chunk: Uint8Array) => Promise<void>) {
    this.write = write;
  }

  add(count: number, _keyBytes: number, from: Uint8Array, start: number, end: number): boolean {
    this.records += count;
    const length = end - start + 1;
    if (length > this.buffer.length) this.grow(length);
    const fit = Math.min(count, Math.floor((this.buffer.length - this.filled) / length));
    this.fill(fit, from, start, end);
    if (fit < count) this.left = { count: count - fit, line: from.slice(start, end) };
    return this.left !== undefined || this.filled >= BUFFER_BYTES / 2;
  }

  private fill(count: number, from: Uint8Array, start: number, end: number): void {
    if (count === 0) return;
    const length = end - start + 1;
    const first = this.filled;
    if (length < 32)
      for (let i = start, at = first; i < end; i += 1, at += 1) this.buffer[at] = from[i] as number;
    else this.buffer.set(from.subarray(start, end), first);
    this.buffer[first + length - 1] = 10;
    let filled = length;
    const total = length * count;
    // Doubles what is there: a handful of copies for any count.
    while (filled < total) {
      const part = Math.min(filled, total - filled);
      this.buffer.copyWithin(first + filled, first, first + part);
      filled += part;
    }
    this.filled = first + total;
  }

  private grow(length: number): void {
    const buffer = Buffer.allocUnsafe(this.filled + length);
    this.buffer.copy(buffer, 0, 0, this.filled);
    this.buffer = buffer;
  }

  async flush(): Promise<void> {
    while (this.filled > 0 || this.left !== undefined) {
      if (this.filled > 0) await this.write(this.buffer.subarray(0, this.filled));
      // The pipe may still hold on to the buffer that was written.
      this.buffer = Buffer.allocUnsafe(BUFFER_BYTES);
      this.filled = 0;
      const { left } = this;
      this.left = undefined;
      if (left === undefined) return;
      this.records -= left.count;
      this.add(left.count, 0, left.line, 0, left.line.length);
    }
  }
}
