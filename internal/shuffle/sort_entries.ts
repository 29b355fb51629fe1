import type { LineOrder } from "./key_order.ts";

/** What is sorted: lines in an arena, each with a key at its start and a partition. */
export interface Entries {
  arena: Buffer;
  offset: Uint32Array;
  length: Uint32Array;
  keyLength: Uint32Array;
  partition: Uint16Array;
  entries: number;
}

const DIGIT = 1 << 16;
/** Below this a radix sort spends its time on its counters. */
const RADIX_MIN = 8_192;

/**
 * Entry numbers in order of partition, then line. Where keys go by their bytes, a
 * radix sort over partition and the key's first 8 bytes; only keys equal so far are
 * compared whole, by a sort that is O(n log n) whatever the data.
 */
export function sortEntries(input: Entries, by: LineOrder): Uint32Array {
  const { entries } = input;
  const order = new Uint32Array(entries);
  for (let i = 0; i < entries; i += 1) order[i] = i;
  const compare = (a: number, b: number) =>
    (input.partition[a] as number) - (input.partition[b] as number) ||
    compareEntries(input, by, a, b);
  if (entries < RADIX_MIN || !by.byBytes) return order.sort(compare);
  const [high, low] = prefixes(input);
  let sorted: Uint32Array = order;
  let spare: Uint32Array = new Uint32Array(entries);
  const passes: ((entry: number) => number)[] = [
    (entry) => (low[entry] as number) & 0xffff,
    (entry) => (low[entry] as number) >>> 16,
    (entry) => (high[entry] as number) & 0xffff,
    (entry) => (high[entry] as number) >>> 16,
    (entry) => input.partition[entry] as number,
  ];
  for (const digit of passes) {
    if (radixPass(sorted, spare, digit)) [sorted, spare] = [spare, sorted];
  }
  sortTies(input, by, sorted, high, low);
  return sorted;
}

/** The first 8 bytes of each key, big-endian, padded with zeros. */
function prefixes(input: Entries): [Uint32Array, Uint32Array] {
  const { arena, offset, keyLength, entries } = input;
  const high = new Uint32Array(entries);
  const low = new Uint32Array(entries);
  for (let entry = 0; entry < entries; entry += 1) {
    const start = offset[entry] as number;
    const length = keyLength[entry] as number;
    let a = 0;
    let b = 0;
    for (let i = 0; i < 4; i += 1) a = (a << 8) | (i < length ? (arena[start + i] as number) : 0);
    for (let i = 4; i < 8; i += 1) b = (b << 8) | (i < length ? (arena[start + i] as number) : 0);
    high[entry] = a;
    low[entry] = b;
  }
  return [high, low];
}

/** One stable pass; false where all share one digit and nothing was moved. */
function radixPass(
  from: Uint32Array,
  into: Uint32Array,
  digit: (entry: number) => number,
): boolean {
  const starts = new Uint32Array(DIGIT + 1);
  for (let i = 0; i < from.length; i += 1) {
    const at = digit(from[i] as number) + 1;
    starts[at] = (starts[at] as number) + 1;
  }
  if (starts[digit(from[0] as number) + 1] === from.length) return false;
  for (let i = 1; i <= DIGIT; i += 1) starts[i] = (starts[i] as number) + (starts[i - 1] as number);
  for (let i = 0; i < from.length; i += 1) {
    const entry = from[i] as number;
    const at = digit(entry);
    into[starts[at] as number] = entry;
    starts[at] = (starts[at] as number) + 1;
  }
  return true;
}

function sortTies(
  input: Entries,
  by: LineOrder,
  order: Uint32Array,
  high: Uint32Array,
  low: Uint32Array,
): void {
  const { partition, keyLength } = input;
  let start = 0;
  while (start < order.length) {
    const first = order[start] as number;
    let end = start + 1;
    let settled = !by.values && (keyLength[first] as number) <= 8;
    while (end < order.length) {
      const entry = order[end] as number;
      const tied =
        high[entry] === high[first] &&
        low[entry] === low[first] &&
        partition[entry] === partition[first];
      if (!tied) break;
      settled &&= keyLength[entry] === keyLength[first];
      end += 1;
    }
    // Keys of one length that fits the prefix are equal: there is nothing to sort.
    if (!settled && end - start > 1)
      order.subarray(start, end).sort((a, b) => compareEntries(input, by, a, b));
    start = end;
  }
}

function compareEntries(input: Entries, by: LineOrder, a: number, b: number): number {
  const { arena, offset, length, keyLength } = input;
  const [aStart, bStart] = [offset[a] as number, offset[b] as number];
  return by.compare(
    arena,
    aStart,
    keyLength[a] as number,
    aStart + (length[a] as number),
    arena,
    bStart,
    keyLength[b] as number,
    bStart + (length[b] as number),
  );
}
