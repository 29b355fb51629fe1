import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { failurePoint } from "../model/failure_point.ts";
import { type LargeShare, UNCOUNTED } from "./large_memory.ts";
import { type IndexEntry, RunWriter, readBlocks, wholeSegment } from "./run_format.ts";

/** Opens the verified blocks of one sorted segment, from the first on. */
export type OpenSegment = () => AsyncIterable<Buffer>;

const READ_BYTES = 256 * 1024;

/** Runs on local disk, in a folder that is made for the first one, and that its owner removes as a whole. */
export class SpillFolder {
  private readonly folder: string;
  private readonly prefix: string;
  private serial = 0;

  /** For what is merged from here. */
  readonly memory: LargeShare;

  /** @param prefix of the names of its files, where the folder is not its alone. */
  constructor(folder: string, prefix = "", memory = UNCOUNTED) {
    this.folder = folder;
    this.prefix = prefix;
    this.memory = memory;
  }

  /** Writes a run; returns an opener for each of its segments. */
  async write(fill: (writer: RunWriter) => Promise<void>): Promise<OpenSegment[]> {
    await failurePoint("worker.spill.before-write");
    this.serial += 1;
    const path = join(this.folder, `${this.prefix}spill-${this.serial}`);
    await mkdir(this.folder, { recursive: true });
    const file = await open(path, "wx", 0o600);
    let index: IndexEntry[];
    try {
      const writer = new RunWriter((chunk) => writeFully(file, chunk), { compress: false });
      await fill(writer);
      index = writer.index;
    } finally {
      await file.close();
    }
    const { memory } = this;
    return index.map((entry) => () => readBlocks(readFileRange(path, entry), memory));
  }
}

async function* readFileRange(path: string, { offset, bytes }: IndexEntry) {
  if (bytes === 0) return;
  const end = offset + bytes - 1;
  yield* wholeSegment(
    bytes,
    createReadStream(path, { start: offset, end, highWaterMark: READ_BYTES }),
  );
}

/** A write may take a part only. @param at where in the file; default where the last one ended. */
export async function writeFully(file: FileHandle, chunk: Uint8Array, at?: number): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    const position = at === undefined ? null : at + done;
    const { bytesWritten } = await file.write(chunk, done, chunk.length - done, position);
    done += bytesWritten;
  }
}
