import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";

/** A file that is open for reading. */
export interface OpenFile {
  stat(): BigIntStats | Promise<BigIntStats>;
  /** Bytes [start, end), or fewer where the file is shorter. */
  chunks(start: number, end: number, chunkBytes: number): AsyncIterable<Buffer>;
  close(): void | Promise<void>;
}

/** Links are not followed: they may lead out of the store. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW;

/** Read by the thread pool: nothing waits. */
export async function openPooled(path: string): Promise<OpenFile> {
  const file = await open(path, FLAGS);
  return {
    stat: () => file.stat({ bigint: true }),
    async *chunks(start, end, chunkBytes) {
      for (let at = start; at < end; ) {
        const bytes = Math.min(chunkBytes, end - at);
        const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(bytes), 0, bytes, at);
        if (bytesRead === 0) return;
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    },
    close: () => file.close(),
  };
}

/**
 * Read at once, by a thread that may wait: what is in the page cache comes in less time than a turn
 * through the thread pool takes, and stays in this core's cache.
 * A chunk's memory is used again once the next is asked for.
 */
export function openBlocking(path: string): OpenFile {
  const file = openSync(path, FLAGS);
  return {
    stat: () => fstatSync(file, { bigint: true }),
    async *chunks(start, end, chunkBytes) {
      // A file that was cut off may end before the range begins.
      if (start >= end) return;
      const size = Math.min(chunkBytes, end - start);
      const buffer = takeBuffer(size);
      try {
        for (let at = start; at < end; ) {
          const bytesRead = readSync(file, buffer, 0, Math.min(size, end - at), at);
          if (bytesRead === 0) return;
          at += bytesRead;
          yield buffer.subarray(0, bytesRead);
        }
      } finally {
        giveBack(buffer);
      }
    },
    close: () => closeSync(file),
  };
}

/** Buffers that wait to be used again by this thread, by their size. */
const idle = new Map<number, Buffer[]>();
let waiting = 0;
const WAITING_MAX = 64;

function takeBuffer(size: number): Buffer {
  const buffer = idle.get(size)?.pop();
  if (buffer === undefined) return Buffer.allocUnsafeSlow(size);
  waiting -= 1;
  return buffer;
}

function giveBack(buffer: Buffer): void {
  if (waiting >= WAITING_MAX) {
    idle.clear();
    waiting = 0;
  }
  waiting += 1;
  const list = idle.get(buffer.length);
  if (list === undefined) idle.set(buffer.length, [buffer]);
  else list.push(buffer);
}
