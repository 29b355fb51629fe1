/**
 * Entries in order of partition, then line. Items (u64 of the key's bytes, u32 entry)
 * are sorted by a radix sort over these bytes, the highest first, which goes on to
 * the next 8 bytes of those that are equal so far; few of them, or where the host
 * decides, by comparison, O(n log n) whatever the data. Stable.
 */
import { chunkOf, hadoopHash } from "./bytes";
import { arenaStart, arenaUsed, ENTRY_HEAD, entryCount, settleCounts } from "./collect";
import { hostPartition } from "./host";
import { BY_HOST, BY_KEY, compareLines, orderKind } from "./order";
import { END, FULL, give } from "./output";

/** All is one partition, it goes by Hadoop's hash, or the host decides. */
const ONE: u32 = 0;
const HADOOP: u32 = 1;

const ITEM: u32 = 16;
const FEW: u32 = 20;
const DIGITS: u32 = 256;
/** Deeper than this, the rest is sorted by comparison: the counters of each level are kept. */
const DEPTH_MAX: u32 = 48;
export const COUNTERS_BYTES: u32 = DEPTH_MAX * DIGITS * 4;

/** Entries fetched at a time. */
const NEAR: u32 = 16;
const ignored = memory.data(16, 16);

let counters: usize = 0;
let starts: usize = 0;
let refs: usize = 0;
let items: usize = 0;
let spare: usize = 0;
let next: u32 = 0;
let last: u32 = 0;

export function setCounters(at: usize): void {
  counters = at;
}

/** Gives each entry its partition; returns where the memory ends that sorting needs. */
export function partitionEntries(kind: u32, partitions: u32): usize {
  settleCounts();
  const end = arenaUsed();
  starts = (end + 31) & ~15;
  memory.fill(starts, 0, (partitions + 1) * 4);
  for (let entry = arenaStart(); entry < end; ) {
    const keyBytes = load<u32>(entry, 8);
    const line = entry + ENTRY_HEAD;
    let partition: u32 = 0;
    if (kind == HADOOP) partition = <u32>(hadoopHash(line, keyBytes) & 0x7fffffff) % partitions;
    else if (kind != ONE) partition = hostPartition(line, keyBytes);
    store<u32>(entry, partition);
    const count = starts + (partition + 1) * 4;
    store<u32>(count, load<u32>(count) + 1);
    entry = line + load<u32>(entry, 12);
  }
  let most: u32 = 0;
  for (let i: u32 = 0; i < partitions; i += 1) {
    const at = starts + (i + 1) * 4;
    most = max(most, load<u32>(at));
    store<u32>(at, load<u32>(at) + load<u32>(at - 4));
  }
  refs = (starts + (partitions + 1) * 4 + 15) & ~15;
  items = (refs + entryCount() * 4 + 15) & ~15;
  spare = items + most * ITEM;
  return spare + most * ITEM + 64;
}

/** Puts the entries of each partition together, in the order in which they came. */
export function scatterEntries(): void {
  const end = arenaUsed();
  for (let entry = arenaStart(); entry < end; entry += ENTRY_HEAD + load<u32>(entry, 12)) {
    const at = starts + load<u32>(entry) * 4;
    const place = load<u32>(at);
    store<u32>(refs + place * 4, <u32>entry);
    store<u32>(at, place + 1);
  }
  next = 0;
  last = 0;
}

/** Sorts the next partition; returns how many entries it has. */
export function sortPartition(partition: u32): u32 {
  const first = last;
  // Scattering has moved each start to its partition's end.
  last = load<u32>(starts + partition * 4);
  next = first;
  const count = last - first;
  if (count < 2) return count;
  const byHost = orderKind() == BY_HOST;
  for (let i: u32 = 0; i < count; i += 1) {
    const entry = load<u32>(refs + (first + i) * 4);
    const item = items + i * ITEM;
    store<u64>(item, byHost ? 0 : chunkOf(entry + ENTRY_HEAD, load<u32>(entry, 8), 0));
    store<u32>(item, entry, 8);
  }
  if (byHost) mergeSort(items, count);
  else radixSort(items, count, 56, 0, 0);
  for (let i: u32 = 0; i < count; i += 1)
    store<u32>(refs + (first + i) * 4, load<u32>(items + i * ITEM, 8));
  return count;
}

/**
 * Sorted entries lie all over the arena. A loop that only loads has the processor fetch many of them
 * at the same time, where giving them one by one would wait for one after the other.
 */
function bringNear(from: u32, to: u32): void {
  let sum: u32 = 0;
  for (let i = from; i < to; i += 1) {
    const entry = <usize>load<u32>(refs + i * 4);
    sum += load<u32>(entry) + load<u32>(entry + 64);
  }
  // Loads that nobody uses would be left out.
  store<u32>(ignored, sum);
}

/** Gives the sorted entries of the partition. */
export function giveSorted(): u32 {
  let near = next;
  while (next < last) {
    if (next == near) {
      near = min(next + NEAR, last);
      bringNear(next, near);
    }
    const entry = <usize>load<u32>(refs + next * 4);
    const status = give(
      load<u32>(entry, 4),
      load<u32>(entry, 8),
      entry + ENTRY_HEAD,
      load<u32>(entry, 12),
    );
    if (status != END) return status;
    next += 1;
  }
  return END;
}

// @ts-ignore: decorator
@inline
function compareItems(a: usize, b: usize): i32 {
  const x = load<u64>(a);
  const y = load<u64>(b);
  if (x != y) return x < y ? -1 : 1;
  return compareEntries(load<u32>(a, 8), load<u32>(b, 8));
}

function compareEntries(a: usize, b: usize): i32 {
  return compareLines(
    a + ENTRY_HEAD,
    load<u32>(a, 8),
    load<u32>(a, 12),
    b + ENTRY_HEAD,
    load<u32>(b, 8),
    load<u32>(b, 12),
  );
}

/** Items whose bytes above `shift` are the same, as are all bytes before `from`. */
function radixSort(first: usize, size: u32, high: i32, start: u32, depth: u32): void {
  let at = first;
  let count = size;
  let shift: u64 = high;
  let from = start;
  const counts = counters + depth * DIGITS * 4;
  while (true) {
    if (count <= FEW) return insertionSort(at, count);
    if (depth == DEPTH_MAX) return mergeSort(at, count);
    memory.fill(counts, 0, DIGITS * 4);
    const end = at + count * ITEM;
    for (let item = at; item < end; item += ITEM) {
      const counter = counts + (<u32>(load<u64>(item) >> shift) & 255) * 4;
      store<u32>(counter, load<u32>(counter) + 1);
    }
    const digit = <u32>(load<u64>(at) >> shift) & 255;
    if (load<u32>(counts + digit * 4) != count) break;
    // All share this byte: on to the next one.
    if (shift > 0) {
      shift -= 8;
      continue;
    }
    const ended = settleEnded(at, count, from);
    at += ended * ITEM;
    count -= ended;
    if (count == 0) return;
    from += 8;
    shift = 56;
    for (let item = at; item < at + count * ITEM; item += ITEM) {
      const entry = load<u32>(item, 8);
      store<u64>(item, chunkOf(entry + ENTRY_HEAD, load<u32>(entry, 8), from));
    }
  }
  scatterItems(at, count, shift, counts);
  // The counters now hold where each digit ends.
  let begin: u32 = 0;
  for (let digit: u32 = 0; digit < DIGITS; digit += 1) {
    const end = load<u32>(counts + digit * 4);
    const some = end - begin;
    if (some > 1) {
      const part = at + begin * ITEM;
      if (some <= FEW) insertionSort(part, some);
      else if (shift > 0) radixSort(part, some, <i32>shift - 8, from, depth + 1);
      else {
        const ended = settleEnded(part, some, from);
        const rest = part + ended * ITEM;
        for (let item = rest; item < part + some * ITEM; item += ITEM) {
          const entry = load<u32>(item, 8);
          store<u64>(item, chunkOf(entry + ENTRY_HEAD, load<u32>(entry, 8), from + 8));
        }
        if (ended < some) radixSort(rest, some - ended, 56, from + 8, depth + 1);
      }
    }
    begin = end;
  }
}

function scatterItems(at: usize, count: u32, shift: u64, counts: usize): void {
  let sum: u32 = 0;
  for (let digit: u32 = 0; digit < DIGITS; digit += 1) {
    const counter = counts + digit * 4;
    const some = load<u32>(counter);
    store<u32>(counter, sum);
    sum += some;
  }
  const end = at + count * ITEM;
  for (let item = at; item < end; item += ITEM) {
    const counter = counts + (<u32>(load<u64>(item) >> shift) & 255) * 4;
    const place = load<u32>(counter);
    v128.store(spare + place * ITEM, v128.load(item));
    store<u32>(counter, place + 1);
  }
  memory.copy(at, spare, count * ITEM);
}

/**
 * Of items equal in the bytes [0, from + 8): those whose keys end here come first, the
 * shorter before the longer (zeros stand for what is not there). Returns how many.
 */
function settleEnded(at: usize, count: u32, from: u32): u32 {
  const limit = from + 8;
  let ended: u32 = 0;
  let others: u32 = 0;
  let same = true;
  let length: u32 = u32.MAX_VALUE;
  for (let i: u32 = 0; i < count; i += 1) {
    const item = at + i * ITEM;
    const keyBytes = load<u32>(load<u32>(item, 8), 8);
    const bytes = v128.load(item);
    if (keyBytes > limit) {
      v128.store(spare + others * ITEM, bytes);
      others += 1;
      continue;
    }
    if (length == u32.MAX_VALUE) length = keyBytes;
    same = same && length == keyBytes;
    v128.store(at + ended * ITEM, bytes);
    ended += 1;
  }
  memory.copy(at + ended * ITEM, spare, others * ITEM);
  if (ended > 1 && !(same && orderKind() == BY_KEY)) mergeSort(at, ended);
  return ended;
}

function insertionSort(at: usize, count: u32): void {
  const end = at + count * ITEM;
  for (let item = at + ITEM; item < end; item += ITEM) {
    const held = v128.load(item);
    const chunk = load<u64>(item);
    const entry = <usize>load<u32>(item, 8);
    let hole = item;
    while (hole > at) {
      const before = hole - ITEM;
      const other = load<u64>(before);
      if (other < chunk) break;
      if (other == chunk && compareEntries(load<u32>(before, 8), entry) <= 0) break;
      v128.store(hole, v128.load(before));
      hole = before;
    }
    v128.store(hole, held);
  }
}

/** Bottom-up: runs of a few, then pairs of runs, back and forth between the two arrays. */
function mergeSort(at: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i += FEW) insertionSort(at + i * ITEM, min(FEW, count - i));
  let source = at;
  let target = spare;
  for (let width: u32 = FEW; width < count; width *= 2) {
    for (let i: u32 = 0; i < count; i += 2 * width) {
      const middle = min(i + width, count);
      const end = min(i + 2 * width, count);
      mergeItems(source, target, i, middle, end);
    }
    const held = source;
    source = target;
    target = held;
  }
  if (source != at) memory.copy(at, source, count * ITEM);
}

function mergeItems(source: usize, target: usize, from: u32, middle: u32, end: u32): void {
  let a = source + from * ITEM;
  const aEnd = source + middle * ITEM;
  let b = aEnd;
  const bEnd = source + end * ITEM;
  let into = target + from * ITEM;
  while (a < aEnd && b < bEnd) {
    const first = compareItems(a, b) <= 0;
    v128.store(into, v128.load(first ? a : b));
    if (first) a += ITEM;
    else b += ITEM;
    into += ITEM;
  }
  memory.copy(into, a, aEnd - a);
  memory.copy(into + (aEnd - a), b, bEnd - b);
}
