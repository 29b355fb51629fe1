/**
 * The sizes of a map output's segments, as its record carries them: a reducer then finds its own
 * without a request for the index. Varints in base64; "" where they would be too long: the index
 * in the object itself tells.
 */
const PARTITIONS_MAX = 100;

export function encodeSizes(sizes: number[]): string {
  if (sizes.length > PARTITIONS_MAX) return "";
  const bytes: number[] = [];
  for (const size of sizes) {
    let rest = size;
    for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
    bytes.push(rest);
  }
  return Buffer.from(bytes).toString("base64");
}

/** Bytes [offset, offset + bytes). */
export interface ByteRange {
  offset: number;
  bytes: number;
}

/** Where a segment lies: they stand one behind the other from 0 on. undefined: not told. */
export function locateSegment(sizes: string, partition: number): ByteRange | undefined {
  const encoded = Buffer.from(sizes, "base64");
  let offset = 0;
  let index = 0;
  let size = 0;
  let scale = 1;
  for (const byte of encoded) {
    size += (byte & 127) * scale;
    scale *= 128;
    if (byte > 127) continue;
    if (index === partition) return { offset, bytes: size };
    offset += size;
    index += 1;
    size = 0;
    scale = 1;
  }
  return undefined;
}
