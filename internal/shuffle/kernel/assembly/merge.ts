/**
 * Merges sorted runs by a tree of losers: each inner node keeps the source that lost
 * there, so that the next record costs one comparison a level. Of equal lines those of
 * the earlier source come first.
 *
 *   source  u64 prefix | u32 line | u32 line bytes | u32 key bytes | u32 next record | u32 block's end
 *           | u32 state | u64 count
 */
import { compareKeys, compareLines, prefixOf } from "./order";
import { DAMAGED, END, give, NEEDS } from "./output";

const SOURCE: u32 = 48;
/** Waits for its first or next block; its record counts; there are no more. */
const WAITING: u32 = 0;
const READY: u32 = 1;
const OVER: u32 = 2;
const NONE: u32 = u32.MAX_VALUE;

let sources: usize = 0;
let tree: usize = 0;
let count: u32 = 0;
/** The tree stands only once every source has its first record. */
let built: bool = false;

/** Keys below `from`, and from `to` on, are left out. */
let from: usize = 0;
let fromBytes: u32 = 0;
let to: usize = 0;
let toBytes: u32 = 0;

/** What `beginMerge` takes at `at`, in bytes. */
export function mergeBytes(size: u32): u32 {
  return size * SOURCE + size * 4 + 16;
}

export function beginMerge(at: usize, size: u32): void {
  sources = at;
  tree = at + size * SOURCE;
  count = size;
  built = false;
  memory.fill(at, 0, mergeBytes(size));
}

/** 0: no bound. */
export function setBounds(lower: usize, lowerBytes: u32, upper: usize, upperBytes: u32): void {
  from = lower;
  fromBytes = lowerBytes;
  to = upper;
  toBytes = upperBytes;
}

/** The next block of a source that waits; an empty one: there are no more. False: it is damaged. */
export function setBlock(index: u32, block: usize, bytes: u32): bool {
  const source = sources + index * SOURCE;
  store<u32>(source, <u32>block, 20);
  store<u32>(source, <u32>block + bytes, 24);
  if (bytes == 0) {
    store<u64>(source, u64.MAX_VALUE);
    store<u32>(source, OVER, 28);
  } else if (!step(source)) return false;
  if (built && stateOf(source) != WAITING) replay(index);
  return true;
}

/** Gives merged records: END, FULL, TOO_SMALL, DAMAGED, or NEEDS and the source that waits. */
export function giveMerged(): u32 {
  if (count == 0) return END;
  if (!built) {
    for (let i: u32 = 0; i < count; i += 1)
      if (stateOf(sources + i * SOURCE) == WAITING) return NEEDS + i;
    build();
  }
  while (true) {
    const winner = load<u32>(tree);
    const source = sources + winner * SOURCE;
    const state = stateOf(source);
    if (state == WAITING) return NEEDS + winner;
    if (state == OVER) return END;
    const status = give(
      load<u64>(source, 32),
      load<u32>(source, 16),
      load<u32>(source, 8),
      load<u32>(source, 12),
    );
    if (status != END) return status;
    if (!step(source)) return DAMAGED;
    if (stateOf(source) != WAITING) replay(winner);
  }
}

// @ts-ignore: decorator
@inline
function stateOf(source: usize): u32 {
  return load<u32>(source, 28);
}

function build(): void {
  memory.fill(tree, 255, count * 4);
  for (let i: u32 = 0; i < count; i += 1) {
    let winner = i;
    let node = (i + count) >> 1;
    while (node > 0) {
      const at = tree + node * 4;
      const other = load<u32>(at);
      if (other == NONE) break;
      if (before(other, winner)) {
        store<u32>(at, winner);
        winner = other;
      }
      node >>= 1;
    }
    store<u32>(tree + node * 4, winner);
  }
  built = true;
}

/** Plays a source that has moved on against all that lost on its way up. */
function replay(index: u32): void {
  let winner = index;
  for (let node = (index + count) >> 1; node > 0; node >>= 1) {
    const at = tree + node * 4;
    const other = load<u32>(at);
    if (before(other, winner)) {
      store<u32>(at, winner);
      winner = other;
    }
  }
  store<u32>(tree, winner);
}

function before(a: u32, b: u32): bool {
  const x = sources + a * SOURCE;
  const y = sources + b * SOURCE;
  const xPrefix = load<u64>(x);
  const yPrefix = load<u64>(y);
  // One that is over has the greatest prefix there is.
  if (xPrefix != yPrefix) return xPrefix < yPrefix;
  const xOver = stateOf(x) == OVER;
  if (xOver || stateOf(y) == OVER) return !xOver;
  const order = compareLines(
    load<u32>(x, 8),
    load<u32>(x, 16),
    load<u32>(x, 12),
    load<u32>(y, 8),
    load<u32>(y, 16),
    load<u32>(y, 12),
  );
  return order != 0 ? order < 0 : a < b;
}

/** Moves a source to its next record within the bounds; false: there is no whole one. */
function step(source: usize): bool {
  const end = <usize>load<u32>(source, 24);
  cursor = <usize>load<u32>(source, 20);
  while (true) {
    if (cursor == end) {
      store<u32>(source, WAITING, 28);
      return true;
    }
    const times = varint(end);
    const keyBytes = <u32>varint(end);
    const bytes = <u32>varint(end);
    if (damaged || keyBytes > bytes || bytes > <u32>(end - cursor)) {
      damaged = false;
      return false;
    }
    const line = cursor;
    cursor += bytes;
    if (from != 0 && load<u32>(source, 40) == 0) {
      if (compareKeys(line, keyBytes, from, fromBytes) < 0) continue;
      store<u32>(source, 1, 40);
    }
    const over = to != 0 && compareKeys(line, keyBytes, to, toBytes) >= 0;
    store<u64>(source, over ? u64.MAX_VALUE : prefixOf(line, keyBytes));
    store<u32>(source, <u32>line, 8);
    store<u32>(source, bytes, 12);
    store<u32>(source, keyBytes, 16);
    store<u32>(source, <u32>cursor, 20);
    store<u32>(source, over ? OVER : READY, 28);
    store<u64>(source, times, 32);
    return true;
  }
}

let cursor: usize = 0;
let damaged: bool = false;

// @ts-ignore: decorator
@inline
function varint(end: usize): u64 {
  let value: u64 = 0;
  let shift: u64 = 0;
  while (cursor < end && shift < 64) {
    const byte = <u64>load<u8>(cursor);
    cursor += 1;
    value |= (byte & 127) << shift;
    if (byte < 128) return value;
    shift += 7;
  }
  damaged = true;
  return 0;
}
