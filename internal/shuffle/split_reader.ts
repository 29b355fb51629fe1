import type { InputRange } from "../model/task.ts";
import { indexOfTerminator, LineNormalizer } from "./lines.ts";

/** Bytes [start, start + length) of a blob. */
export interface Extent {
  start: number;
  length: number;
}

/** Reads bytes of the range's blob, in the version the plan saw. */
export type ReadBytes = (range: InputRange, extent: Extent) => AsyncIterable<Uint8Array>;

/** Rewrites the bytes of records, in chunks, so that each is one LF-ended line. */
export interface RecordLines {
  push(chunk: Uint8Array): Uint8Array;
  /** What is missing after the last chunk. */
  end(): Uint8Array;
}

const LF = 10;
const CR = 13;
const BEYOND_BYTES = 64 * 1024;

/** What `readSplitRange` asks for first, and at all unless a record reaches far beyond the range. */
export function extentOf(range: InputRange, beyondBytes = BEYOND_BYTES): Extent {
  // The byte before tells whether a record begins at `start`.
  const start = Math.max(0, range.start - 1);
  // The end of the last record is asked for together with the rest: it is seldom far.
  const stop = Math.min(range.start + range.length + beyondBytes, range.size);
  return { start, length: stop - start };
}

/**
 * The records whose first byte lies in the range, each ended by one LF. The last
 * one may reach beyond the range, over the whole rest of the blob if need be.
 */
export async function* readSplitRange(
  range: InputRange,
  read: ReadBytes,
  linesFrom: (offset: number) => RecordLines = () => new LineNormalizer(),
  beyondBytes = BEYOND_BYTES,
): AsyncIterable<Uint8Array> {
  const end = Math.min(range.start + range.length, range.size);
  const extent = extentOf(range, beyondBytes);
  let lines: RecordLines | undefined;
  const finder = new StartFinder(range.start);
  let lastByte = -1;
  let at = extent.start;
  for await (const chunk of read(range, extent)) {
    const within = chunk.subarray(0, Math.max(0, end - at));
    const beyond = chunk.subarray(within.length);
    const records = finder.skip(within);
    at += within.length;
    lastByte = within.length > 0 ? (within[within.length - 1] as number) : lastByte;
    if (records.length > 0) {
      lines ??= linesFrom(at - records.length);
      yield lines.push(records);
    }
    if (at < end || beyond.length === 0) continue;
    at += beyond.length;
    if (lines === undefined || lastByte === LF || lastByte === CR) break;
    const terminator = indexOfTerminator(beyond, 0);
    yield lines.push(terminator < 0 ? beyond : beyond.subarray(0, terminator + 1));
    if (terminator >= 0) lastByte = LF;
  }
  if (lines === undefined) return;
  if (lastByte !== LF && lastByte !== CR) {
    const stop = extent.start + extent.length;
    yield* finishRecord(range, stop, read, lines);
  }
  yield lines.end();
}

/** The rest of a record that is open at `end`: longer than most. */
async function* finishRecord(
  range: InputRange,
  end: number,
  read: ReadBytes,
  lines: RecordLines,
): AsyncIterable<Uint8Array> {
  let at = end;
  let size = BEYOND_BYTES;
  while (at < range.size) {
    const length = Math.min(size, range.size - at);
    for await (const chunk of read(range, { start: at, length })) {
      const stop = indexOfTerminator(chunk, 0);
      if (stop >= 0) {
        yield lines.push(chunk.subarray(0, stop + 1));
        return;
      }
      yield lines.push(chunk);
    }
    at += length;
    size *= 2;
  }
}

/** Passes over the rest of a record that began before the range. */
class StartFinder {
  private state: "before" | "inside" | "after-cr" | "found";

  constructor(start: number) {
    this.state = start === 0 ? "found" : "before";
  }

  /** The part of the chunk that belongs to records beginning in the range. */
  skip(chunk: Uint8Array): Uint8Array {
    let at = 0;
    while (this.state !== "found" && at < chunk.length) {
      const byte = chunk[at] as number;
      if (this.state === "after-cr") {
        if (byte === LF) at += 1;
        this.state = "found";
      } else if (this.state === "before") {
        // This is the one byte before the range.
        this.state = byte === LF ? "found" : byte === CR ? "after-cr" : "inside";
        at += 1;
      } else {
        const stop = indexOfTerminator(chunk, at);
        if (stop < 0) return chunk.subarray(chunk.length);
        this.state = chunk[stop] === CR ? "after-cr" : "found";
        at = stop + 1;
      }
    }
    return this.state === "found" ? chunk.subarray(at) : chunk.subarray(chunk.length);
  }
}
