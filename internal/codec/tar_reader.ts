import { Header } from "tar";
import { type ArchiveEntry, DEFAULT_FILE_MODE, DEFAULT_FOLDER_MODE } from "./archive_entry.ts";

const BLOCK_BYTES = 512;
/** Of what describes one entry: a path, a link's target, times. */
const DESCRIPTION_BYTES_MAX = 1 << 20;

/**
 * The entries of a tar: ustar, pax and GNU's long names.
 * @throws Error when it is damaged or ends too early; what `bytes` throws, as it is.
 */
export async function* tarEntries(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<ArchiveEntry> {
  const source = bytes[Symbol.asyncIterator]();
  try {
    yield* entriesOf(new ByteReader(source));
    // The checksum of what it is compressed with stands at the very end.
    while (!(await source.next()).done);
  } finally {
    await source.return?.();
  }
}

async function* entriesOf(input: ByteReader): AsyncGenerator<ArchiveEntry> {
  /** For the next entry: what does not fit its header. */
  let more: Description = {};
  while (true) {
    const header = new Header(await input.exactly(BLOCK_BYTES));
    if (header.nullBlock) return;
    if (!header.cksumValid) throw new Error("no tar header where one is due");
    switch (header.type) {
      case "ExtendedHeader":
      case "OldExtendedHeader":
        more = { ...more, ...parsePax(await description(input, header)) };
        break;
      case "GlobalExtendedHeader":
        await description(input, header);
        break;
      case "NextFileHasLongPath":
      case "OldGnuLongPath":
        more = { ...more, path: untilNul(await description(input, header)) };
        break;
      case "NextFileHasLongLinkpath":
        more = { ...more, linkpath: untilNul(await description(input, header)) };
        break;
      default:
        yield* oneEntry(input, header, more);
        more = {};
    }
  }
}

async function* oneEntry(
  input: ByteReader,
  header: Header,
  more: Description,
): AsyncGenerator<ArchiveEntry> {
  const name = more.path ?? header.path ?? "";
  const target = more.linkpath ?? header.linkpath ?? "";
  switch (header.type) {
    case "File":
    case "OldFile":
    case "ContiguousFile": {
      if (more.isSparse) return yield { kind: "other", name, what: "a sparse file" };
      const size = sizeOf(more.size ?? header.size);
      const body = input.upTo(size);
      yield { kind: "file", name, mode: header.mode ?? DEFAULT_FILE_MODE, body };
      for await (const _ of body);
      await input.exactly(-size & (BLOCK_BYTES - 1));
      return;
    }
    case "Directory":
      return yield { kind: "folder", name, mode: header.mode ?? DEFAULT_FOLDER_MODE };
    case "SymbolicLink":
      return yield { kind: "symbolic link", name, target };
    case "Link":
      return yield { kind: "hard link", name, target };
    case "CharacterDevice":
    case "BlockDevice":
      return yield { kind: "other", name, what: "a device" };
    case "FIFO":
      return yield { kind: "other", name, what: "a named pipe" };
    case "SparseFile":
      return yield { kind: "other", name, what: "a sparse file" };
    default:
      yield { kind: "other", name, what: "of a kind that is not known here" };
  }
}

interface Description {
  path?: string;
  linkpath?: string;
  size?: number;
  isSparse?: boolean;
}

async function description(input: ByteReader, header: Header): Promise<Buffer> {
  const size = sizeOf(header.size);
  if (size > DESCRIPTION_BYTES_MAX) throw new Error("a tar header without an end");
  const padded = await input.exactly(size + (-size & (BLOCK_BYTES - 1)));
  return padded.subarray(0, size);
}

function sizeOf(size: number | undefined): number {
  if (size === undefined || !Number.isSafeInteger(size) || size < 0)
    throw new Error("a tar header without a size");
  return size;
}

function untilNul(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end < 0 ? bytes.length : end);
}

/** Records of the form "LENGTH KEY=VALUE\n", the length that of all of it. */
function parsePax(bytes: Buffer): Description {
  const found: Description = {};
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(" ", at);
    const length = Number(bytes.toString("latin1", at, Math.max(at, space)));
    const end = at + length;
    const equals = bytes.indexOf("=", space);
    const whole = Number.isSafeInteger(length) && space > at && equals > space && equals < end;
    if (!whole || bytes[end - 1] !== 10) throw new Error("a damaged pax header");
    const key = bytes.toString("utf8", space + 1, equals);
    const value = bytes.toString("utf8", equals + 1, end - 1);
    if (key === "path" || key === "linkpath") found[key] = value;
    else if (key === "size") found.size = Number(value);
    else if (key.startsWith("GNU.sparse.")) found.isSparse = true;
    at = end;
  }
  return found;
}

class ByteReader {
  private readonly source: AsyncIterator<Uint8Array>;
  private rest: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterator<Uint8Array>) {
    this.source = source;
  }

  async exactly(count: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    for await (const part of this.upTo(count)) parts.push(Buffer.from(part));
    return Buffer.concat(parts);
  }

  /** The next bytes as they come. What is not read of one call is there for the next. */
  upTo(count: number): AsyncIterable<Uint8Array> {
    const reader = this;
    let missing = count;
    return {
      async *[Symbol.asyncIterator]() {
        while (missing > 0) {
          await reader.refill();
          const part = reader.rest.subarray(0, missing);
          reader.rest = reader.rest.subarray(part.length);
          missing -= part.length;
          yield part;
        }
      },
    };
  }

  private async refill(): Promise<void> {
    while (this.rest.length === 0) {
      const next = await this.source.next();
      if (next.done === true) throw new Error("unexpected end of file");
      this.rest = next.value;
    }
  }
}
