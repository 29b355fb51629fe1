/**
 * The map side: lines of a script's output become entries of an arena, equal ones
 * once with their count. Where most turn out distinct, looking for equals is given up.
 *
 *   entry  u32 tag | u32 count | u32 key bytes | u32 line bytes | line
 *   slot   u32 tag | u32 where its entry lies; 0: none | u32 count | u32 lengths | 16 bytes of line
 *
 * The tag is of the line's hash; once entries are partitioned it is the partition. A slot holds a
 * short line itself, so that one that is there already costs one access to far memory and not two:
 * these accesses are most of what a record costs. While equals are looked for, it is the slots that count.
 */
import { equalBytes, hashOf, hashShort } from "./bytes";

export const ENTRY_HEAD: u32 = 16;
/** What sorting takes for each entry, at worst (sort.ts). */
export const SORT_BYTES: u32 = 36;
const SLOT_BYTES: u32 = 32;
const TABLE_SLOTS_MIN: u32 = 1 << 12;
const PROBE_RECORDS: u32 = 50_000;
const LF: u8 = 10;
/** Counts are of 32 bits: so many lines and what one call may bring beyond. */
const RECORDS_MAX: u32 = 1 << 31;
const COUNTED_MAX: u32 = 1 << 30;
/** Lines that fit one vector. */
const SHORT: u32 = 16;
/** Lines looked for at a time: v128 line | u64 hash | u32 where it begins | u32 lengths. */
const BATCH: u32 = 32;
const BATCHED: u32 = 32;
const ignored = memory.data(16, 16);
const batch = memory.data(BATCH * BATCHED, 16);
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

/** The table is at the arena's end, and a part of it where nothing is counted. @param slotsMax a power of 2. */
export function setArena(start: usize, end: usize, slotsMax: u32): void {
  arena = start;
  arenaEnd = end;
  table = end - slotsMax * SLOT_BYTES;
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

/** Where nothing is rewritten: short lines by the batch, others one by one. */
function addPlain(start: usize, end: usize): usize {
  const separators = i8x16.splat(<i8>load<u8>(from));
  const lfs = i8x16.splat(<i8>LF);
  const fields = keyFields;
  let line = start;
  let isShort = true;
  while (line < end) {
    // After a long line others like it are to be expected.
    if (isShort && counting) {
      line = addBatch(line, end);
      if (full) break;
    }
    // One line in one pass, whatever it is.
    let key: usize = 0;
    let left = fields;
    let stop = end;
    for (let at = line; at < end; at += 16) {
      const bytes = v128.load(at);
      const ends = <u32>i8x16.bitmask(i8x16.eq(bytes, lfs));
      if (key == 0) {
        // Below the first line end only; all, where there is none.
        let cuts = <u32>i8x16.bitmask(i8x16.eq(bytes, separators)) & ((ends & -ends) - 1);
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
    }
    if (stop >= end) break;
    const size = <u32>(stop - line);
    isShort = size <= SHORT;
    if (key != 0) {
      if (!insert(line, size, <u32>(key - line))) break;
    } else {
      // The separator is always there, also before an empty value: it takes the line end's place.
      store<u8>(stop, load<u8>(from));
      if (!insert(line, size + 1, size)) {
        store<u8>(stop, LF);
        break;
      }
    }
    line = stop + 1;
  }
  return line;
}

/**
 * Takes lines up to the first one that is not short, or has no separator, or no end yet; returns where that begins.
 * First all are cut and hashed, then all are looked for: far memory is asked for several slots at a time then, since
 * nothing stands between two accesses that a processor would have to guess.
 */
function addBatch(start: usize, end: usize): usize {
  const separators = i8x16.splat(<i8>load<u8>(from));
  const lfs = i8x16.splat(<i8>LF);
  const fields = keyFields;
  let line = start;
  while (counting && records < RECORDS_MAX) {
    let last = batch;
    while (last < batch + BATCH * BATCHED && line < end) {
      const bytes = v128.load(line);
      const ends = <u32>i8x16.bitmask(i8x16.eq(bytes, lfs));
      const size = ctz(ends);
      // Below the line's end only.
      let cuts = <u32>i8x16.bitmask(i8x16.eq(bytes, separators)) & ((ends & -ends) - 1);
      for (let left = fields; left > 1; left -= 1) cuts &= cuts - 1;
      if (ends == 0 || cuts == 0 || line + size >= end) break;
      const lengths = (size << 8) | ctz(cuts);
      const short = v128.and(bytes, i8x16.lt_u(IOTA, i8x16.splat(<i8>size)));
      const hash = hashShort(short, lengths);
      v128.store(last, short);
      store<u64>(last, hash, 16);
      store<u32>(last, <u32>line, 24);
      store<u32>(last, lengths, 28);
      last += BATCHED;
      line += size + 1;
    }
    bringNear(last);
    const stopped = countBatch(last);
    if (stopped != 0) return stopped;
    // A line that does not fit in here is next.
    if (last != batch + BATCH * BATCHED) break;
  }
  return line;
}

/** The processor fetches all their slots at the same time, if nothing stands between two loads. */
function bringNear(last: usize): void {
  const mask = tableSlots - 1;
  let sum: u32 = 0;
  for (let at = batch; at < last; at += BATCHED)
    sum += load<u32>(table + (load<u32>(at, 16) & mask) * SLOT_BYTES);
  // Loads that nobody uses would be left out.
  store<u32>(ignored, sum);
}

/** Takes the lines of the batch; returns where the one begins that found no room, or 0. */
function countBatch(last: usize): usize {
  let hashes: u64 = 0;
  let counted: u32 = 0;
  let mask = tableSlots - 1;
  for (let at = batch; at < last; at += BATCHED) {
    const short = v128.load(at);
    const hash = load<u64>(at, 16);
    const lengths = load<u32>(at, 28);
    let place = <u32>hash & mask;
    let slot: usize = 0;
    // One of them may have ended the counting.
    while (counting) {
      slot = table + place * SLOT_BYTES;
      if (
        load<u32>(slot, 12) == lengths &&
        !v128.any_true(v128.xor(v128.load(slot, 16), short))
      )
        break;
      if (load<u32>(slot, 4) == 0) {
        slot = 0;
        break;
      }
      place = (place + 1) & mask;
    }
    if (slot != 0) {
      store<u32>(slot, load<u32>(slot, 8) + 1, 8);
      counted += 1;
      hashes += hash;
      continue;
    }
    const line = <usize>load<u32>(at, 24);
    if (!insert(line, lengths >> 8, lengths & 255)) {
      count(counted, hashes);
      return line;
    }
    mask = tableSlots - 1;
  }
  count(counted, hashes);
  return 0;
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
    hash = hashShort(v128.and(v128.load(line), within), (bytes << 8) | keyBytes);
  } else hash = hashOf(line, bytes, keyBytes);
  const tag = <u32>hash;
  let slot: usize = 0;
  if (counting) {
    slot = findSlot(line, bytes, keyBytes, tag);
    const entry = load<u32>(slot, 4);
    if (entry != 0) {
      store<u32>(slot, load<u32>(slot, 8) + 1, 8);
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
  if (need > <u64>(counting ? table : arenaEnd)) {
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
  if (slot != 0) fillSlot(slot, tag, used, 1, line, bytes, keyBytes);
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
    if (entries > records / 2) {
      settleCounts();
      counting = false;
    }
  }
  return true;
}

function fillSlot(
  slot: usize,
  tag: u32,
  entry: usize,
  times: u32,
  line: usize,
  bytes: u32,
  keyBytes: u32,
): void {
  store<u32>(slot, tag);
  store<u32>(slot, <u32>entry, 4);
  store<u32>(slot, times, 8);
  if (bytes > SHORT) return store<u32>(slot, 0, 12);
  const within = i8x16.lt_u(IOTA, i8x16.splat(<i8>bytes));
  store<u32>(slot, (bytes << 8) | keyBytes, 12);
  v128.store(slot, v128.and(v128.load(line), within), 16);
}

/** Tells the entries what their slots have counted. */
export function settleCounts(): void {
  if (!counting) return;
  const end = table + tableSlots * SLOT_BYTES;
  for (let slot = table; slot < end; slot += SLOT_BYTES) {
    const entry = <usize>load<u32>(slot, 4);
    if (entry != 0) store<u32>(entry, load<u32>(slot, 8), 4);
  }
}

function enlargeTable(): void {
  settleCounts();
  tableSlots = min(4 * tableSlots, tableSlotsMax);
  memory.fill(table, 0, tableSlots * SLOT_BYTES);
  const mask = tableSlots - 1;
  for (let entry = arena; entry < used; ) {
    const tag = load<u32>(entry);
    const bytes = load<u32>(entry, 12);
    let at = tag & mask;
    while (load<u32>(table + at * SLOT_BYTES, 4) != 0) at = (at + 1) & mask;
    const line = entry + ENTRY_HEAD;
    fillSlot(table + at * SLOT_BYTES, tag, entry, load<u32>(entry, 4), line, bytes, load<u32>(entry, 8));
    entry = line + bytes;
  }
}
