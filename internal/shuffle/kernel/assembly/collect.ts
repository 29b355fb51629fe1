/**
 * The map side: lines of a script's output become entries of an arena, equal ones
 * once with their count. Where most turn out distinct, looking for equals is given up.
 *
 *   entry  u32 tag | u32 count | u32 key bytes | u32 line bytes | line
 *   slot   u32 tag | u32 where its entry lies; 0: none
 *
 * The tag is of the line's hash; once entries are partitioned it is the partition.
 */
import { equalBytes, hashOf, hashShort } from "./bytes";

export const ENTRY_HEAD: u32 = 16;
/** What sorting takes for each entry, at worst (sort.ts). */
export const SORT_BYTES: u32 = 36;
const SLOT_BYTES: u32 = 8;
const TABLE_SLOTS_MIN: u32 = 1 << 12;
const PROBE_RECORDS: u32 = 50_000;
const LF: u8 = 10;
/** Counts are of 32 bits: so many lines and what one call may bring beyond. */
const RECORDS_MAX: u32 = 1 << 31;
const COUNTED_MAX: u32 = 1 << 30;
/** Lines that fit one vector. */
const SHORT: u32 = 16;
// @ts-ignore: decorator
@lazy const IOTA = i8x16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

let arena: usize = 0;
let arenaEnd: usize = 0;
let used: usize = 0;
let table: usize = 0;
let tableSlots: u32 = 0;
let tableSlotsMax: u32 = 0;
let entries: u32 = 0;
let records: u32 = 0;
let counting: bool = true;
let probing: bool = true;
let full: bool = false;
let allRecords: u64 = 0;
let allHashes: u64 = 0;

/** How the lines are cut: by `from`, of which the key has `keyFields` fields; written with `into`. */
let keyFields: u32 = 1;
let from: usize = 0;
let fromBytes: u32 = 1;
let into: usize = 0;
let intoBytes: u32 = 1;
let plain: bool = true;
let scratch: usize = 0;

/** @param slotsMax a power of 2. */
export function setArena(start: usize, end: usize, tableStart: usize, slotsMax: u32): void {
  arena = start;
  arenaEnd = end;
  table = tableStart;
  tableSlotsMax = slotsMax;
  tableSlots = 0;
  emptyArena();
}

/** @param rewritten where lines are put together anew: room for the longest and a separator. */
export function setFormat(
  fields: u32,
  separator: usize,
  separatorBytes: u32,
  written: usize,
  writtenBytes: u32,
  rewritten: usize,
): void {
  keyFields = fields;
  from = separator;
  fromBytes = separatorBytes;
  into = written;
  intoBytes = writtenBytes;
  scratch = rewritten;
  plain = separatorBytes == 1 && writtenBytes == 1 && load<u8>(separator) == load<u8>(written);
}

/** Forgets all entries, not what they added up to. */
export function emptyArena(): void {
  used = arena;
  entries = 0;
  records = 0;
  counting = true;
  probing = true;
  full = false;
  tableSlots = min(TABLE_SLOTS_MIN, tableSlotsMax);
  memory.fill(table, 0, tableSlots * SLOT_BYTES);
}

export function resetTotals(): void {
  allRecords = 0;
  allHashes = 0;
}

export function arenaStart(): usize {
  return arena;
}
export function arenaUsed(): usize {
  return used;
}
export function entryCount(): u32 {
  return entries;
}
/** Why `addLines` stopped: the arena has no room for the next line. */
export function isFull(): bool {
  return full;
}
/** Lines taken since `resetTotals`, and the sum over their hashes, whatever their order. */
export function totalRecords(): f64 {
  return <f64>allRecords;
}
export function totalHashes(): u64 {
  return allHashes;
}

/** Takes the whole lines of [start, end); returns where the first one begins that was not taken. */
export function addLines(start: usize, end: usize): usize {
  full = false;
  return plain ? addPlain(start, end) : addRewritten(start, end);
}

/**
 * Where nothing is rewritten and lines are short, which is where the time goes: what changes stays in
 * locals, and no branch depends on the length of a line.
 */
function addPlain(start: usize, end: usize): usize {
  const separator = load<u8>(from);
  const lfs = i8x16.splat(<i8>LF);
  const separators = i8x16.splat(<i8>separator);
  const fields = keyFields;
  let line = start;
  let counted: u32 = 0;
  let hashes: u64 = 0;
  let slots = table;
  let mask = counting ? tableSlots - 1 : 0;
  while (line < end) {
    const first = v128.load(line);
    let bytes = first;
    let at = line;
    let key: usize = 0;
    let left = fields;
    let stop: usize = 0;
    while (true) {
      const ends = <u32>i8x16.bitmask(i8x16.eq(bytes, lfs));
      if (key == 0) {
        let cuts = <u32>i8x16.bitmask(i8x16.eq(bytes, separators));
        // Below the first line end only; all, where there is none.
        cuts &= (ends & -ends) - 1;
        while (cuts != 0) {
          left -= 1;
          if (left == 0) {
            key = at + ctz(cuts);
            break;
          }
          cuts &= cuts - 1;
        }
      }
      if (ends != 0) {
        stop = at + ctz(ends);
        break;
      }
      at += 16;
      if (at >= end) break;
      bytes = v128.load(at);
    }
    if (stop == 0 || stop >= end) break;
    if (key == 0) {
      // The separator is always there, also before an empty value: it takes the line end's place.
      store<u8>(stop, separator);
      const taken = insert(line, <u32>(stop + 1 - line), <u32>(stop - line));
      if (!taken) {
        store<u8>(stop, LF);
        break;
      }
      mask = counting ? tableSlots - 1 : 0;
    } else {
      const size = <u32>(stop - line);
      const keyBytes = <u32>(key - line);
      if (size <= SHORT && mask != 0 && counted < COUNTED_MAX) {
        const within = i8x16.lt_u(IOTA, i8x16.splat(<i8>size));
        const short = v128.and(first, within);
        const lengths = (<u64>size << 32) | keyBytes;
        const hash = hashShort(short, lengths);
        const tag = <u32>hash;
        let place = tag & mask;
        let entry: usize = 0;
        while (true) {
          const slot = slots + place * SLOT_BYTES;
          entry = load<u32>(slot, 4);
          if (entry == 0) break;
          if (
            load<u32>(slot) == tag &&
            load<u64>(entry, 8) == lengths &&
            !v128.any_true(
              v128.and(v128.xor(v128.load(entry + ENTRY_HEAD), short), within),
            )
          )
            break;
          place = (place + 1) & mask;
        }
        if (entry != 0) {
          store<u32>(entry, load<u32>(entry, 4) + 1, 4);
          counted += 1;
          hashes += hash;
          line = stop + 1;
          continue;
        }
      }
      count(counted, hashes);
      counted = 0;
      hashes = 0;
      if (!insert(line, size, keyBytes)) return line;
      mask = counting ? tableSlots - 1 : 0;
    }
    line = stop + 1;
  }
  count(counted, hashes);
  return line;
}

/** Lines that were there already. */
// @ts-ignore: decorator
@inline
function count(lines: u32, hashes: u64): void {
  records += lines;
  allRecords += lines;
  allHashes += hashes;
}

function addRewritten(start: usize, end: usize): usize {
  let line = start;
  while (true) {
    const stop = find(line, end, LF);
    if (stop >= end) return line;
    const cut = keyEnd(line, stop);
    const keyBytes = <u32>((cut == 0 ? stop : cut) - line);
    const value = cut == 0 ? stop : cut + fromBytes;
    memory.copy(scratch, line, keyBytes);
    memory.copy(scratch + keyBytes, into, intoBytes);
    memory.copy(scratch + keyBytes + intoBytes, value, stop - value);
    const bytes = keyBytes + intoBytes + <u32>(stop - value);
    if (!insert(scratch, bytes, keyBytes)) return line;
    line = stop + 1;
  }
}

function find(start: usize, end: usize, byte: u8): usize {
  const wanted = i8x16.splat(<i8>byte);
  for (let at = start; at < end; at += 16) {
    const found = <u32>i8x16.bitmask(i8x16.eq(v128.load(at), wanted));
    if (found != 0) return min(end, at + ctz(found));
  }
  return end;
}

/** Where the `keyFields`-th separator of a line begins; 0: it has fewer. */
function keyEnd(line: usize, stop: usize): usize {
  const first = load<u8>(from);
  let left = keyFields;
  let at = line;
  while (true) {
    at = find(at, stop, first);
    if (at + fromBytes > stop) return 0;
    if (!equalBytes(at, from, fromBytes)) {
      at += 1;
      continue;
    }
    left -= 1;
    if (left == 0) return at;
    at += fromBytes;
  }
}

/** Takes one line; false: there is no room. */
function insert(line: usize, bytes: u32, keyBytes: u32): bool {
  // No count runs over.
  if (records >= RECORDS_MAX) {
    full = true;
    return false;
  }
  let hash: u64;
  if (bytes <= SHORT) {
    const within = i8x16.lt_u(IOTA, i8x16.splat(<i8>bytes));
    hash = hashShort(v128.and(v128.load(line), within), (<u64>bytes << 32) | keyBytes);
  } else hash = hashOf(line, bytes, keyBytes);
  const tag = <u32>hash;
  let slot: usize = 0;
  if (counting) {
    slot = findSlot(line, bytes, keyBytes, tag);
    const entry = load<u32>(slot, 4);
    if (entry != 0) {
      store<u32>(entry, load<u32>(entry, 4) + 1, 4);
      count(1, hash);
      return true;
    }
  }
  return append(line, bytes, keyBytes, tag, hash, slot);
}

/** The slot of an equal line, or the free one where it belongs. */
function findSlot(line: usize, bytes: u32, keyBytes: u32, tag: u32): usize {
  const mask = tableSlots - 1;
  let at = tag & mask;
  while (true) {
    const slot = table + at * SLOT_BYTES;
    const entry = <usize>load<u32>(slot, 4);
    if (entry == 0) return slot;
    if (
      load<u32>(slot) == tag &&
      load<u32>(entry, 12) == bytes &&
      load<u32>(entry, 8) == keyBytes &&
      equalBytes(entry + ENTRY_HEAD, line, bytes)
    )
      return slot;
    at = (at + 1) & mask;
  }
}

function append(line: usize, bytes: u32, keyBytes: u32, tag: u32, hash: u64, at: usize): bool {
  const end = used + ENTRY_HEAD + bytes;
  const need = <u64>end + <u64>(entries + 1) * SORT_BYTES;
  if (need > <u64>arenaEnd) {
    full = true;
    return false;
  }
  let slot = at;
  if (counting && (entries + 1) * 4 > tableSlots * 3) {
    if (tableSlots == tableSlotsMax) {
      full = true;
      return false;
    }
    enlargeTable();
    slot = findSlot(line, bytes, keyBytes, tag);
  }
  if (slot != 0) {
    store<u32>(slot, tag);
    store<u32>(slot, <u32>used, 4);
  }
  store<u32>(used, tag);
  store<u32>(used, 1, 4);
  store<u32>(used, keyBytes, 8);
  store<u32>(used, bytes, 12);
  if (bytes > 256) memory.copy(used + ENTRY_HEAD, line, bytes);
  else
    for (let i: u32 = 0; i < bytes; i += 16)
      v128.store(used + ENTRY_HEAD + i, v128.load(line + i));
  used = end;
  entries += 1;
  count(1, hash);
  if (probing && records >= PROBE_RECORDS) {
    probing = false;
    counting = entries <= records / 2;
  }
  return true;
}

function enlargeTable(): void {
  tableSlots *= 4;
  if (tableSlots > tableSlotsMax) tableSlots = tableSlotsMax;
  memory.fill(table, 0, tableSlots * SLOT_BYTES);
  const mask = tableSlots - 1;
  for (let entry = arena; entry < used; entry += ENTRY_HEAD + load<u32>(entry, 12)) {
    const tag = load<u32>(entry);
    let at = tag & mask;
    while (load<u32>(table + at * SLOT_BYTES, 4) != 0) at = (at + 1) & mask;
    store<u32>(table + at * SLOT_BYTES, tag);
    store<u32>(table + at * SLOT_BYTES, <u32>entry, 4);
  }
}
