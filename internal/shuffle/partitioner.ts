/**
 * Hadoop's partition of a key: WritableComparator.hashBytes (h = 31 h + signed
 * byte, from 1, in 32 bits) without its sign bit, modulo the partitions.
 */
export function hashPartition(
  bytes: Uint8Array,
  start: number,
  end: number,
  partitions: number,
): number {
  let hash = 1;
  for (let i = start; i < end; i += 1)
    hash = (Math.imul(hash, 31) + (((bytes[i] as number) << 24) >> 24)) | 0;
  return (hash & 0x7fffffff) % partitions;
}
