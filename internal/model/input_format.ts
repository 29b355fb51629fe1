/** Compressed inputs are read whole, by one task: they cannot be cut at a byte. */
export function isCompressed(name: string): boolean {
  return name.endsWith(".gz") || name.endsWith(".zst");
}
