import type { RunCursor } from "./run_format.ts";

/** Takes a record; true when `flush` must be awaited before the next. */
export interface RecordSink {
  add(count: number, keyBytes: number, from: Uint8Array, start: number, end: number): boolean;
  flush(): Promise<void>;
}

/** More runs than this are merged in passes, so that memory and open streams stay bounded. */
export const MERGE_FAN_IN = 32;

/** Merges sorted runs into the sink in unsigned byte order of the keys. */
export async function mergeRuns(cursors: RunCursor[], sink: RecordSink): Promise<void> {
  const heap: RunCursor[] = [];
  try {
    const began = await Promise.all(cursors.map((cursor) => cursor.nextBlock()));
    cursors.forEach((cursor, i) => {
      if (began[i] === true) push(heap, cursor);
    });
    while (heap.length > 0) {
      const top = heap[0] as RunCursor;
      if (sink.add(top.count, top.keyBytes, top.block, top.lineStart, top.lineEnd))
        await sink.flush();
      if (top.advance() || (await top.nextBlock())) siftDown(heap);
      else {
        const last = heap.pop() as RunCursor;
        if (heap.length > 0) {
          heap[0] = last;
          siftDown(heap);
        }
      }
    }
    await sink.flush();
  } finally {
    await Promise.all(cursors.map((cursor) => cursor.close()));
  }
}

/** Groups of at most `MERGE_FAN_IN`, as even as can be. */
export function fanInGroups<T>(runs: T[]): T[][] {
  const groups = Math.ceil(runs.length / MERGE_FAN_IN);
  const size = Math.ceil(runs.length / Math.max(1, groups));
  return Array.from({ length: groups }, (_, i) => runs.slice(i * size, (i + 1) * size));
}

function less(a: RunCursor, b: RunCursor): boolean {
  if (a.prefix !== b.prefix) return a.prefix < b.prefix;
  const order = a.block.compare(
    b.block,
    b.lineStart,
    b.lineStart + b.keyBytes,
    a.lineStart,
    a.lineStart + a.keyBytes,
  );
  return order < 0;
}

function push(heap: RunCursor[], cursor: RunCursor): void {
  heap.push(cursor);
  let at = heap.length - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!less(heap[at] as RunCursor, heap[parent] as RunCursor)) return;
    swap(heap, at, parent);
    at = parent;
  }
}

function siftDown(heap: RunCursor[]): void {
  let at = 0;
  while (true) {
    const left = 2 * at + 1;
    if (left >= heap.length) return;
    const right = left + 1;
    let least = left;
    if (right < heap.length && less(heap[right] as RunCursor, heap[left] as RunCursor))
      least = right;
    if (!less(heap[least] as RunCursor, heap[at] as RunCursor)) return;
    swap(heap, at, least);
    at = least;
  }
}

function swap(heap: RunCursor[], a: number, b: number): void {
  const held = heap[a] as RunCursor;
  heap[a] = heap[b] as RunCursor;
  heap[b] = held;
}
