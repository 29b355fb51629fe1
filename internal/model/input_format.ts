/** Compressed inputs are read whole, by one task: they cannot be cut at a byte. */
export function isCompressed(name: string): boolean {
  return /\.(gz|zst|bz2)$/.test(name);
}

/** Compressed, but not readable here: taken for text they would give nonsense. */
export function isUnreadable(name: string): boolean {
  return /\.(xz|lz4|snappy|lzo|deflate)$/.test(name);
}
