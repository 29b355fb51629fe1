import type { FileHandle } from "node:fs/promises";

/** Reading and writing files by large chunks, in memory that is used again: anew each time, it would keep the collector busy. */

const idle = new Map<number, Buffer[]>();
const IDLE_MAX = 64;
const WRITE_BYTES = 512 * 1024;

function takeBuffer(size: number): Buffer {
  return idle.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
}

function giveBack(buffers: Buffer[]): void {
  let waiting = 0;
  for (const list of idle.values()) waiting += list.length;
  for (const buffer of buffers.slice(0, Math.max(0, IDLE_MAX - waiting))) {
    const list = idle.get(buffer.length);
    if (list === undefined) idle.set(buffer.length, [buffer]);
    else list.push(buffer);
  }
}

/**
 * Bytes [start, end) of an open file, or fewer where it is shorter; one read runs ahead.
 * @param reuse a chunk's memory is used again once the chunk after it is asked for.
 */
export async function* readFileRange(
  file: FileHandle,
  start: number,
  end: number,
  { chunkBytes, reuse }: { chunkBytes: number; reuse: boolean },
): AsyncIterable<Buffer> {
  const size = Math.min(chunkBytes, end - start);
  const pair = reuse ? [takeBuffer(size), takeBuffer(size)] : [];
  let at = start;
  let turn = 0;
  const read = () => {
    const into = pair[turn] ?? Buffer.allocUnsafeSlow(size);
    turn = 1 - turn;
    const from = at;
    at += Math.min(size, end - at);
    const chunk = fill(file, into, from, at - from);
    // Whoever asks for the chunk is told of its failure.
    chunk.catch(() => undefined);
    return chunk;
  };
  let ahead: Promise<Buffer> | undefined = read();
  try {
    while (ahead !== undefined) {
      const chunk: Buffer = await ahead;
      ahead = at < end && chunk.length > 0 ? read() : undefined;
      if (chunk.length > 0) yield chunk;
    }
  } finally {
    await ahead?.catch(() => undefined);
    giveBack(pair);
  }
}

/** One read may give a part only; fewer bytes than asked for are the file's end. */
async function fill(file: FileHandle, into: Buffer, from: number, bytes: number): Promise<Buffer> {
  let filled = 0;
  while (filled < bytes) {
    const { bytesRead } = await file.read(into, filled, bytes - filled, from + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return into.subarray(0, filled);
}

/** Gathers what is written, and writes it while more is gathered. */
export class FileWriter {
  private readonly file: FileHandle;
  private readonly pair = [takeBuffer(WRITE_BYTES), takeBuffer(WRITE_BYTES)];
  private filled = 0;
  private behind: Promise<void> = Promise.resolve();

  constructor(file: FileHandle) {
    this.file = file;
  }

  /** The chunk may be used again afterwards. What fails is told by this or a later call. */
  async write(chunk: Uint8Array): Promise<void> {
    for (let rest = chunk; rest.length > 0; ) {
      const taken = rest.subarray(0, WRITE_BYTES - this.filled);
      (this.pair[0] as Buffer).set(taken, this.filled);
      this.filled += taken.length;
      rest = rest.subarray(taken.length);
      if (this.filled === WRITE_BYTES) await this.flush();
    }
  }

  private async flush(): Promise<void> {
    await this.behind;
    const [full] = this.pair as [Buffer, Buffer];
    this.behind = this.writeOut(full.subarray(0, this.filled));
    this.behind.catch(() => undefined);
    this.pair.reverse();
    this.filled = 0;
  }

  private async writeOut(bytes: Buffer): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      const { bytesWritten } = await this.file.write(rest);
      rest = rest.subarray(bytesWritten);
    }
  }

  /** Everything is in the file. */
  async end(): Promise<void> {
    await this.flush();
    await this.behind;
  }

  /** Call once, at last, whether or not it went well. */
  async close(): Promise<void> {
    await this.behind.catch(() => undefined);
    giveBack(this.pair.splice(0));
    await this.file.close();
  }
}
