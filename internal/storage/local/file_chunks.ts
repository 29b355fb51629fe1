import { readSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";

/** Buffers that wait to be used again by this thread, by their size. */
const idle = new Map<number, Buffer[]>();
const IDLE_MAX = 64;

/** Bytes [start, end) of an open file, or fewer where it is shorter. */
export async function* readChunks(
  file: FileHandle,
  start: number,
  end: number,
  chunkBytes: number,
): AsyncIterable<Buffer> {
  for (let at = start; at < end; ) {
    const bytes = Math.min(chunkBytes, end - at);
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(bytes), 0, bytes, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/**
 * The same at once, by a thread that may wait: what is in the page cache comes in less time than a
 * turn through the thread pool takes, and stays in this core's cache.
 * A chunk's memory is used again once the next is asked for.
 */
export async function* readChunksBlocking(
  file: FileHandle,
  start: number,
  end: number,
  chunkBytes: number,
): AsyncIterable<Buffer> {
  // A file that was cut off may end before the range begins.
  if (start >= end) return;
  const size = Math.min(chunkBytes, end - start);
  const buffer = idle.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
  try {
    for (let at = start; at < end; ) {
      const bytesRead = readSync(file.fd, buffer, 0, Math.min(size, end - at), at);
      if (bytesRead === 0) return;
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    giveBack(buffer);
  }
}

function giveBack(buffer: Buffer): void {
  let waiting = 0;
  for (const list of idle.values()) waiting += list.length;
  if (waiting >= IDLE_MAX) idle.clear();
  const list = idle.get(buffer.length);
  if (list === undefined) idle.set(buffer.length, [buffer]);
  else list.push(buffer);
}
