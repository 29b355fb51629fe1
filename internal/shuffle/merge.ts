import type { LineOrder } from "./key_order.ts";
import type { RecordSink } from "./record_sink.ts";
import type { RunCursor } from "./run_format.ts";

/** More runs than this are merged in passes, so that memory and open streams stay bounded. */
export const MERGE_FAN_IN = 32;

/** Merges runs into the sink; all are sorted in this order. */
export async function mergeRuns(
  cursors: RunCursor[],
  sink: RecordSink,
  order: LineOrder,
): Promise<void> {
  const heap: RunCursor[] = [];
  try {
    const began = await Promise.all(cursors.map((cursor) => cursor.nextBlock()));
    cursors.forEach((cursor, i) => {
      if (began[i] === true) push(heap, cursor, order);
    });
    while (heap.length > 0) {
      const top = heap[0] as RunCursor;
      if (sink.add(top.count, top.keyBytes, top.block, top.lineStart, top.lineEnd))
        await sink.flush();
      if (top.advance() || (await top.nextBlock())) siftDown(heap, order);
      else {
        const last = heap.pop() as RunCursor;
        if (heap.length > 0) {
          heap[0] = last;
          siftDown(heap, order);
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

function less(a: RunCursor, b: RunCursor, order: LineOrder): boolean {
  if (order.byBytes && a.prefix !== b.prefix) return a.prefix < b.prefix;
  const { block, lineStart, keyBytes, lineEnd } = a;
  const { compare } = order;
  return (
    compare(block, lineStart, keyBytes, lineEnd, b.block, b.lineStart, b.keyBytes, b.lineEnd) < 0
  );
}

function push(heap: RunCursor[], cursor: RunCursor, order: LineOrder): void {
  heap.push(cursor);
  let at = heap.length - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!less(heap[at] as RunCursor, heap[parent] as RunCursor, order)) return;
    swap(heap, at, parent);
    at = parent;
  }
}

function siftDown(heap: RunCursor[], order: LineOrder): void {
  let at = 0;
  while (true) {
    const left = 2 * at + 1;
    if (left >= heap.length) return;
    const right = left + 1;
    let least = left;
    if (right < heap.length && less(heap[right] as RunCursor, heap[left] as RunCursor, order))
      least = right;
    if (!less(heap[least] as RunCursor, heap[at] as RunCursor, order)) return;
    swap(heap, at, least);
    at = least;
  }
}

function swap(heap: RunCursor[], a: number, b: number): void {
  const held = heap[a] as RunCursor;
  heap[a] = heap[b] as RunCursor;
  heap[b] = held;
}
