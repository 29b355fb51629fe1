/** Byte strings in linear memory: 8 bytes at a time. All regions may be read 16 bytes beyond their end. */

const PRIME_A: u64 = 0x9e3779b97f4a7c15;
const PRIME_B: u64 = 0xd6e8feb86659fd93;

/** Of the last 1 to 8 bytes: those that count, as read little-endian. */
// @ts-ignore: decorator
@inline
function tail(at: usize, bytes: u32): u64 {
  return load<u64>(at) & (u64.MAX_VALUE >> (<u64>(8 - bytes) << 3));
}

/** A hash of at least one byte; two chains, so that long lines do not wait for one multiplier. */
// @ts-ignore: decorator
@inline
export function hashOf(start: usize, bytes: u32, seed: u32): u64 {
  let a: u64 = (<u64>seed + 1) * PRIME_B;
  let b: u64 = <u64>bytes;
  let at = start;
  let rest = bytes;
  while (rest > 16) {
    a = (a ^ load<u64>(at)) * PRIME_A;
    a ^= a >> 32;
    b = (b ^ load<u64>(at, 8)) * PRIME_B;
    b ^= b >> 32;
    at += 16;
    rest -= 16;
  }
  if (rest > 8) {
    b = (b ^ load<u64>(at)) * PRIME_B;
    b ^= b >> 32;
    at += 8;
    rest -= 8;
  }
  a = (a ^ b ^ tail(at, rest)) * PRIME_A;
  a ^= a >> 32;
  a *= PRIME_B;
  return a ^ (a >> 29);
}

/** A hash of at most 16 bytes, zeros behind them; `lengths` tells those zeros from theirs. */
// @ts-ignore: decorator
@inline
export function hashShort(bytes: v128, lengths: u64): u64 {
  let a = (i64x2.extract_lane(bytes, 0) ^ lengths) * PRIME_A;
  a ^= a >> 32;
  a = (a ^ i64x2.extract_lane(bytes, 1)) * PRIME_B;
  a ^= a >> 29;
  return a * PRIME_A;
}

/** Whether two strings of one length, at least 1, are the same. */
// @ts-ignore: decorator
@inline
export function equalBytes(a: usize, b: usize, bytes: u32): bool {
  let rest = bytes;
  while (rest > 8) {
    if (load<u64>(a) != load<u64>(b)) return false;
    a += 8;
    b += 8;
    rest -= 8;
  }
  return ((load<u64>(a) ^ load<u64>(b)) & (u64.MAX_VALUE >> (<u64>(8 - rest) << 3))) == 0;
}

/** Unsigned bytes in order; the beginning of a string comes before it. */
export function compareBytes(a: usize, aBytes: u32, b: usize, bBytes: u32): i32 {
  let rest = min(aBytes, bBytes);
  while (rest >= 8) {
    const x = load<u64>(a);
    const y = load<u64>(b);
    if (x != y) return bswap<u64>(x) < bswap<u64>(y) ? -1 : 1;
    a += 8;
    b += 8;
    rest -= 8;
  }
  if (rest > 0) {
    const x = bswap<u64>(tail(a, rest));
    const y = bswap<u64>(tail(b, rest));
    if (x != y) return x < y ? -1 : 1;
  }
  return aBytes < bBytes ? -1 : aBytes > bBytes ? 1 : 0;
}

/** Bytes [from, from + 8) of a string as a number that compares as they do; zeros beyond its end. */
// @ts-ignore: decorator
@inline
export function chunkOf(start: usize, bytes: u32, from: u32): u64 {
  if (from >= bytes) return 0;
  const rest = bytes - from;
  const word = bswap<u64>(load<u64>(start + from));
  return rest >= 8 ? word : word & ~(u64.MAX_VALUE >> (<u64>rest << 3));
}

/** Hadoop's WritableComparator.hashBytes: h = 31 h + signed byte, from 1, in 32 bits. */
export function hadoopHash(start: usize, bytes: u32): i32 {
  let hash: i32 = 1;
  const end = start + bytes;
  for (let at = start; at < end; at += 1) hash = hash * 31 + <i32>load<i8>(at);
  return hash;
}

export function countByte(start: usize, end: usize, byte: u8): u32 {
  const wanted = i8x16.splat(<i8>byte);
  let found: u32 = 0;
  let at = start;
  for (; at + 16 <= end; at += 16)
    found += <u32>popcnt(i8x16.bitmask(i8x16.eq(v128.load(at), wanted)));
  for (; at < end; at += 1) if (load<u8>(at) == byte) found += 1;
  return found;
}
