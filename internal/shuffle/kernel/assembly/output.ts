/** Where sorted records go: blocks of a run, or the very lines, as often as they occur. */

/** varint count | varint key bytes | varint line bytes | line */
export const RECORDS: u32 = 0;
export const LINES: u32 = 1;

/** What a call that gives records answers. */
export const END: u32 = 0;
/** The output is to be taken, then the same call again. */
export const FULL: u32 = 1;
/** An empty output cannot hold the next record: it needs `outputNeeds` bytes. */
export const TOO_SMALL: u32 = 2;
/** A record does not lie inside its block. */
export const DAMAGED: u32 = 3;
/** Of a merge: source `status - NEEDS` wants its next block. */
export const NEEDS: u32 = 16;

const LF: u8 = 10;
/** So many short lines are written one by one. */
const FEW_LINES: u32 = 64;

let kind: u32 = RECORDS;
let start: usize = 0;
let end: usize = 0;
/** A block of records is full from here on. */
let enough: usize = 0;
let at: usize = 0;
let needs: u32 = 0;
let records: u64 = 0;
/** Of the line that is being repeated: how often it is still due. */
let due: u64 = 0;

/** @param blockBytes a block of records is closed when it has this many. */
export function setOutput(as: u32, from: usize, bytes: u32, blockBytes: u32): void {
  kind = as;
  start = from;
  at = from;
  end = from + bytes;
  enough = from + min(blockBytes, bytes);
}

/** Where the output ends now; it begins anew. */
export function takeOutput(): usize {
  const filled = at;
  at = start;
  return filled;
}

export function outputNeeds(): u32 {
  return needs;
}

/** Records given so far, repeats included. */
export function recordsGiven(): f64 {
  return <f64>records;
}

export function resetOutput(): void {
  records = 0;
  due = 0;
  at = start;
}

// @ts-ignore: decorator
@inline
function putVarint(value: u64): void {
  while (value > 127) {
    store<u8>(at, <u8>(value & 127) | 128);
    at += 1;
    value >>= 7;
  }
  store<u8>(at, <u8>value);
  at += 1;
}

/** Short ones by whole words: what is written beyond is written over next. */
// @ts-ignore: decorator
@inline
function putBytes(from: usize, bytes: u32): void {
  if (bytes > 256) memory.copy(at, from, bytes);
  else for (let i: u32 = 0; i < bytes; i += 16) v128.store(at + i, v128.load(from + i));
  at += bytes;
}

/** Gives a record; END: it was taken whole. */
export function give(count: u64, keyBytes: u32, line: usize, bytes: u32): u32 {
  if (kind == LINES) return giveLines(count, line, bytes);
  if (at >= enough) return FULL;
  const room = bytes + 48;
  if (at + room > end) return short(room);
  putVarint(count);
  putVarint(keyBytes);
  putVarint(bytes);
  putBytes(line, bytes);
  records += count;
  return END;
}

function short(room: u32): u32 {
  if (at > start) return FULL;
  needs = room;
  return TOO_SMALL;
}

function giveLines(count: u64, line: usize, bytes: u32): u32 {
  const size = bytes + 1;
  const room = <u64>((max(end - 16, at) - at) / size);
  const left = due > 0 ? due : count;
  const fit = min(left, room);
  if (fit == 0) return short(size + 32);
  const first = at;
  putBytes(line, bytes);
  store<u8>(at, LF);
  at += 1;
  const total = <u32>fit * size;
  let filled = size;
  if (size <= 16) {
    // What is written beyond is written over next.
    const short = v128.load(first);
    const few = min(total, FEW_LINES * size);
    for (; filled < few; filled += size) v128.store(first + filled, short);
  }
  // Doubles what is there: a handful of copies for any count.
  while (filled < total) {
    const part = min(filled, total - filled);
    memory.copy(first + filled, first, part);
    filled += part;
  }
  at = first + total;
  records += fit;
  due = left - fit;
  return due > 0 ? FULL : END;
}
