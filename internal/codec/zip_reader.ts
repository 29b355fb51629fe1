import { type FileHandle, open } from "node:fs/promises";
import { Readable } from "node:stream";
import { crc32 } from "node:zlib";
import {
  type Entry,
  fromRandomAccessReaderPromise,
  getFileNameLowLevel,
  RandomAccessReader,
  type ZipFile,
} from "yauzl";
import { type ArchiveEntry, DEFAULT_FILE_MODE, DEFAULT_FOLDER_MODE } from "./archive_entry.ts";

const FILE_TYPE = 0o170000;
const REGULAR_FILE = 0o100000;
const FOLDER = 0o040000;
const SYMBOLIC_LINK = 0o120000;
const TARGET_BYTES_MAX = 4_096;

const CHUNK_BYTES = 65_536;

const STORED = 0;
const DEFLATED = 8;

/** Systems whose zip programs note Unix modes: Unix, macOS. */
const UNIX_MAKERS = new Set([3, 19]);

/**
 * The entries of a zip.
 * @param path of a file.
 * @throws Error when it is damaged.
 */
export async function* zipEntries(path: string): AsyncGenerator<ArchiveEntry> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    // Undecoded: what is refused and how is not for the library to say.
    const options = { decodeStrings: false, autoClose: false };
    const zip = await fromRandomAccessReaderPromise(new FileReader(file, size), size, options);
    for await (const entry of zip.eachEntry()) yield await entryOf(zip, entry);
  } finally {
    await file.close();
  }
}

/** The library's own throws where nobody can catch it when a zip names a place beyond 2^53. */
class FileReader extends RandomAccessReader {
  private readonly file: FileHandle;
  private readonly size: number;

  constructor(file: FileHandle, size: number) {
    super();
    this.file = file;
    this.size = size;
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null, bytesRead?: number) => void,
  ): void {
    const there = position >= 0 && position + length <= this.size;
    const reading = there
      ? this.file.read(buffer, offset, length, position)
      : Promise.reject(new Error("unexpected end of file"));
    reading.then(({ bytesRead }) => callback(null, bytesRead), callback);
  }

  override _readStreamForRange(start: number, end: number): Readable {
    return Readable.from(this.range(start, end));
  }

  private async *range(start: number, end: number): AsyncGenerator<Buffer> {
    for (let at = start; at < end; ) {
      const wanted = Math.min(CHUNK_BYTES, end - at);
      const { buffer, bytesRead } = await this.file.read(Buffer.allocUnsafe(wanted), 0, wanted, at);
      if (bytesRead === 0) throw new Error("unexpected end of file");
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }
}

async function entryOf(zip: ZipFile, entry: Entry): Promise<ArchiveEntry> {
  const name = getFileNameLowLevel(
    entry.generalPurposeBitFlag,
    entry.fileNameRaw,
    entry.extraFields,
    true,
  );
  const mode = UNIX_MAKERS.has(entry.versionMadeBy >>> 8) ? entry.externalFileAttributes >>> 16 : 0;
  const type = name.endsWith("/") ? FOLDER : mode & FILE_TYPE;
  if (type === FOLDER) return { kind: "folder", name, mode: mode || DEFAULT_FOLDER_MODE };
  if (entry.isEncrypted()) return { kind: "other", name, what: "encrypted" };
  const isReadable = [STORED, DEFLATED].includes(entry.compressionMethod);
  if (!isReadable)
    return { kind: "other", name, what: `compressed by method ${entry.compressionMethod}` };
  const body = contents(zip, entry);
  if (type === SYMBOLIC_LINK) return { kind: "symbolic link", name, target: await targetOf(body) };
  if (type === REGULAR_FILE || type === 0)
    return { kind: "file", name, mode: mode || DEFAULT_FILE_MODE, body };
  return { kind: "other", name, what: "a device, a named pipe or a socket" };
}

async function* contents(zip: ZipFile, entry: Entry): AsyncGenerator<Uint8Array> {
  const stream = await zip.openReadStreamPromise(entry);
  let checksum = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    checksum = crc32(chunk, checksum);
    yield chunk;
  }
  if (checksum !== entry.crc32) throw new Error("the checksum of an entry is wrong");
}

async function targetOf(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.length;
    if (size > TARGET_BYTES_MAX) throw new Error("the target of a link has no end");
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}
