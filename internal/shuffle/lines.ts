/** Records are lines that end at LF, at CRLF or at a lone CR. Inside, all end at LF. */

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

/** The index of the first LF or CR at or after `from`, or -1. */
export function indexOfTerminator(chunk: Uint8Array, from: number): number {
  const lf = chunk.indexOf(LF, from);
  const cr = (lf < 0 ? chunk : chunk.subarray(0, lf)).indexOf(CR, from);
  return cr >= 0 ? cr : lf;
}

export function countLines(chunk: Uint8Array): number {
  let lines = 0;
  for (let at = chunk.indexOf(LF); at >= 0; at = chunk.indexOf(LF, at + 1)) lines += 1;
  return lines;
}
