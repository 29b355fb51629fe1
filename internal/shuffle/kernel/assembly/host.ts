/** What only the host can tell: orders and partitions that options of a job describe. */

// @ts-ignore: decorator
@external("host", "compare")
export declare function hostCompare(
  a: usize,
  aKeyBytes: u32,
  aBytes: u32,
  b: usize,
  bKeyBytes: u32,
  bBytes: u32,
): i32;

// @ts-ignore: decorator
@external("host", "partition")
export declare function hostPartition(key: usize, keyBytes: u32): u32;
