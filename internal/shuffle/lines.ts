/** Records are lines that end at LF, at CRLF or at a lone CR. Inside, all end at LF. */

import { Kernel } from "./kernel/kernel.ts";

const LF = 10;
const CR = 13;

/** Rewrites a stream of chunks so that every record ends at one LF, the last one too. */
export class LineNormalizer {
  private skipLf = false;
  private lastByte = LF;

  /** The same bytes with LF only; the very chunk where there was nothing to rewrite. */
  push(chunk: Uint8Array): Uint8Array {
    if (chunk.length === 0) return chunk;
    let from = chunk;
    if (this.skipLf && from[0] === LF) from = from.subarray(1);
    this.skipLf = chunk[chunk.length - 1] === CR;
    const out = from.indexOf(CR) < 0 ? from : rewrite(from);
    if (out.length > 0) this.lastByte = out[out.length - 1] as number;
    return out;
  }

  /** What is missing after the last chunk: an LF, or nothing. */
  end(): Uint8Array {
    return this.lastByte === LF ? new Uint8Array(0) : Uint8Array.of(LF);
  }
}

function rewrite(chunk: Uint8Array): Uint8Array {
  const out = new Uint8Array(chunk.length);
  let size = 0;
  for (let i = 0; i < chunk.length; i += 1) {
    const byte = chunk[i] as number;
    if (byte === LF && i > 0 && chunk[i - 1] === CR) continue;
    out[size] = byte === CR ? LF : byte;
    size += 1;
  }
  return out.subarray(0, size);
}

/** Each chunk cut where it is large: what makes more of every line makes no more than so much more at a time. */
export function* piecesOf(chunk: Uint8Array, pieceBytes: number): Iterable<Uint8Array> {
  for (let at = 0; at < chunk.length; at += pieceBytes) yield chunk.subarray(at, at + pieceBytes);
}

/** The index of the first LF or CR at or after `from`, or -1. */
export function indexOfTerminator(chunk: Uint8Array, from: number): number {
  const lf = chunk.indexOf(LF, from);
  const cr = (lf < 0 ? chunk : chunk.subarray(0, lf)).indexOf(CR, from);
  return cr >= 0 ? cr : lf;
}

/** Counts in the kernel: a copy and a count of 16 bytes at a time are cheaper than a search per line. */
export function countLines(chunk: Uint8Array): number {
  counter ??= new LineCounter();
  return counter.count(chunk);
}

const COUNTED_BYTES = 256 * 1024;
let counter: LineCounter | undefined;

class LineCounter {
  private readonly kernel = Kernel.take();
  private readonly at = this.kernel.region(COUNTED_BYTES);

  count(chunk: Uint8Array): number {
    const { kernel, at } = this;
    let lines = 0;
    for (let from = 0; from < chunk.length; from += COUNTED_BYTES) {
      const part = chunk.subarray(from, from + COUNTED_BYTES);
      kernel.bytes.set(part, at);
      lines += kernel.fn.countByte(at, at + part.length, LF);
    }
    return lines;
  }
}
