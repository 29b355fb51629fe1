import { copyFile, type FileHandle, link, open } from "node:fs/promises";

const BUFFER_BYTES = 1 << 20;

export function partName(number: number): string {
  return `part-${String(number).padStart(5, "0")}`;
}

/** The same file in another place; a copy where that is on another file system. */
export async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error;
    await copyFile(from, to);
  }
}

/** Puts the record of this number into a buffer. */
export type PutRecord = (into: Buffer, at: number, number: number) => void;

/** Writes short records to a file, many at a time. */
export class RecordFile implements AsyncDisposable {
  private readonly file: FileHandle;
  private readonly buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  private filled = 0;

  private constructor(file: FileHandle) {
    this.file = file;
  }

  static async create(path: string): Promise<RecordFile> {
    return new RecordFile(await open(path, "w"));
  }

  /** Records of the same length, by their numbers. */
  async records(from: number, to: number, length: number, put: PutRecord): Promise<void> {
    for (let number = from; number < to; number += 1) {
      if (this.filled + length > BUFFER_BYTES) await this.flush();
      put(this.buffer, this.filled, number);
      this.filled += length;
    }
  }

  /** The same record, many times over. */
  async repeat(record: Buffer, times: number): Promise<void> {
    for (let left = times; left > 0; ) {
      const fit = Math.min(left, Math.floor((BUFFER_BYTES - this.filled) / record.length));
      if (fit > 0) this.buffer.fill(record, this.filled, this.filled + fit * record.length);
      this.filled += fit * record.length;
      left -= fit;
      if (left > 0) await this.flush();
    }
  }

  private async flush(): Promise<void> {
    await this.file.writeFile(this.buffer.subarray(0, this.filled));
    this.filled = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush();
    await this.file.close();
  }
}
