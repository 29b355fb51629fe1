import type { PairFormat } from "../model/contract.ts";

const LF = 10;

export interface ResultLinesOptions {
  /** How the printed lines are cut. */
  format: PairFormat;
  /** What stands between key and value in the result. */
  separator: string;
  /** A line that has no separator gets one at its end. */
  always: boolean;
}

/** Rewrites printed lines (LF-ended, none beyond the limit) as Hadoop's TextOutputFormat writes them. */
export class ResultLines {
  private readonly options: ResultLinesOptions;
  private readonly from: Buffer;
  private readonly to: Buffer;
  /** The line that has no end yet. */
  private open: Buffer[] = [];

  constructor(options: ResultLinesOptions) {
    this.options = options;
    this.from = Buffer.from(options.format.separator);
    this.to = Buffer.from(options.separator);
  }

  /** @returns the whole lines there are now, rewritten. */
  push(chunk: Uint8Array): Buffer {
    const last = chunk.lastIndexOf(LF);
    const whole = last < 0 ? [] : [...this.open, chunk.subarray(0, last + 1)];
    if (last >= 0) this.open = [];
    this.open.push(Buffer.from(chunk.subarray(last + 1)));
    return this.rewritten(Buffer.concat(whole));
  }

  private rewritten(lines: Buffer): Buffer {
    const parts: Buffer[] = [];
    for (let start = 0, end = 0; start < lines.length; start = end + 1) {
      end = lines.indexOf(LF, start);
      const line = lines.subarray(start, end);
      const keyEnd = keyEndOf(line, this.from, this.options.format.keyFields);
      if (keyEnd >= 0) {
        parts.push(line.subarray(0, keyEnd), this.to);
        parts.push(lines.subarray(start + keyEnd + this.from.length, end + 1));
      } else if (this.options.always) parts.push(line, this.to, lines.subarray(end, end + 1));
      else parts.push(lines.subarray(start, end + 1));
    }
    return Buffer.concat(parts);
  }
}

/** Where the key of a line ends: at the `keyFields`-th separator; -1: there are fewer. */
function keyEndOf(line: Buffer, separator: Buffer, keyFields: number): number {
  let at = line.indexOf(separator);
  for (let left = keyFields - 1; left > 0 && at >= 0; left -= 1)
    at = line.indexOf(separator, at + separator.length);
  return at;
}
