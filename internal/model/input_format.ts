/** Compressed inputs are read whole, by one task: they cannot be cut at a byte. */
export function isCompressed(name: string): boolean {
  return name.endsWith(".gz");
}

/** Compressed, but not yet readable here: taken for text they would give nonsense. */
export function isUnreadable(name: string): boolean {
  return /\.(zst|bz2|xz|lz4|snappy)$/.test(name);
}
