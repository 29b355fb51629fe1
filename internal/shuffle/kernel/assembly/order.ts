import { chunkOf, compareBytes } from "./bytes";
import { hostCompare } from "./host";

/** Lines go by the bytes of their keys, by those of the whole line, or as the host says. */
export const BY_KEY: u32 = 0;
export const BY_LINE: u32 = 1;
export const BY_HOST: u32 = 2;

let order: u32 = BY_KEY;

export function setOrder(kind: u32): void {
  order = kind;
}

// @ts-ignore: decorator
@inline
export function orderKind(): u32 {
  return order;
}

/** What may be compared before the lines themselves: the first 8 bytes of the key. */
// @ts-ignore: decorator
@inline
export function prefixOf(line: usize, keyBytes: u32): u64 {
  return order == BY_HOST ? 0 : chunkOf(line, keyBytes, 0);
}

export function compareLines(
  a: usize,
  aKeyBytes: u32,
  aBytes: u32,
  b: usize,
  bKeyBytes: u32,
  bBytes: u32,
): i32 {
  if (order == BY_HOST) return hostCompare(a, aKeyBytes, aBytes, b, bKeyBytes, bBytes);
  const byKey = compareBytes(a, aKeyBytes, b, bKeyBytes);
  if (byKey != 0 || order == BY_KEY) return byKey;
  return compareBytes(a + aKeyBytes, aBytes - aKeyBytes, b + bKeyBytes, bBytes - bKeyBytes);
}

/** Of two keys alone, by the same order. */
export function compareKeys(a: usize, aBytes: u32, b: usize, bBytes: u32): i32 {
  return order == BY_HOST
    ? hostCompare(a, aBytes, aBytes, b, bBytes, bBytes)
    : compareBytes(a, aBytes, b, bBytes);
}
