import { createRequire } from "node:module";
import { setImmediate } from "node:timers/promises";

/** The next bits, 32 at most; null: skips to the next whole byte. */
type ReadBits = (count: number | null) => number;

/**
 * The decoder inside unbzip2-stream, not its stream: that decodes all it was given at once,
 * and 722 bytes may hold a gigabyte.
 */
interface BlockDecoder {
  /** Reads "BZh1" to "BZh9". @returns the digit. */
  header(bits: ReadBits): number;
  /**
   * Reads a block or the end of a stream.
   * @param scratch as many numbers as a block has bytes.
   * @returns the checksum of the stream up to here; null at its end.
   */
  decompress(
    bits: ReadBits,
    emit: (byte: number) => void,
    scratch: Int32Array,
    scratchSize: number,
    checksum: number,
  ): number | null;
}

const library = createRequire(import.meta.url)("unbzip2-stream/lib/bzip2.js") as BlockDecoder;

const HEADER_BYTES = 4;
/** Of a block before compression, per digit of the header. */
const BLOCK_BYTES = 100_000;
/** What bytes that cannot be compressed may grow by, with room to spare. */
const GROWTH_BYTES = 25_000;
/** No block is larger when compressed, however badly. */
const COMPRESSED_BYTES_MAX = 4 << 20;
const OUT_BYTES = 65_536;

/**
 * Decodes bzip2 streams that follow one another, a block at a time: up to 46 MB come out of one,
 * and its thread is blocked for 0.1 s, at worst for 0.6 s.
 * @throws what `fault` makes of the trouble when the bytes are not whole streams.
 */
export async function* bunzip2(
  bytes: AsyncIterable<Uint8Array>,
  fault: (cause: unknown) => Error,
): AsyncGenerator<Uint8Array> {
  const blocks = new BlockReader();
  async function* ready() {
    while (blocks.ready) {
      const output = decoded(blocks, fault);
      for (let at = 0; at < output.length; at += OUT_BYTES)
        yield output.subarray(at, at + OUT_BYTES);
      // Whatever else waits on this thread comes first.
      await setImmediate();
    }
  }
  for await (const chunk of bytes) {
    blocks.append(chunk);
    yield* ready();
  }
  blocks.endInput();
  yield* ready();
}

function decoded(blocks: BlockReader, fault: (cause: unknown) => Error): Uint8Array {
  try {
    return blocks.next();
  } catch (cause) {
    throw fault(cause);
  }
}

class OutOfBytes extends Error {}

class BlockReader {
  private readonly decoder = Object.create(library) as BlockDecoder;
  private bytes: Uint8Array = new Uint8Array(0);
  /** In bits, of `bytes`. */
  private position = 0;
  private parts: Uint8Array[] = [];
  private partsBytes = 0;
  private ended = false;
  /** What must be there before the next try, unless the input has ended. */
  private wantedBytes = HEADER_BYTES;
  private scratch = new Int32Array(0);
  /** Of the stream so far; undefined: between streams. */
  private checksum: number | undefined;

  append(chunk: Uint8Array): void {
    // A copy: the source may use the chunk's memory again.
    this.parts.push(Buffer.from(chunk));
    this.partsBytes += chunk.length;
  }

  endInput(): void {
    this.ended = true;
  }

  /** Whether `next` has something to decode. */
  get ready(): boolean {
    const left = this.bytes.length + this.partsBytes - Math.ceil(this.position / 8);
    return this.ended ? left > 0 || this.checksum !== undefined : left >= this.wantedBytes;
  }

  /** Decodes a header, a block or an end. @returns the bytes of the block. */
  next(): Uint8Array {
    this.join();
    const start = this.position;
    try {
      return this.checksum === undefined ? this.readHeader() : this.readBlock(this.checksum);
    } catch (error) {
      // The library's own words are jokes.
      if (!(error instanceof OutOfBytes)) throw new Error(this.trouble, { cause: error });
      if (this.ended) throw new Error("unexpected end of file", { cause: error });
      if (this.wantedBytes > COMPRESSED_BYTES_MAX) throw new Error("a block without an end");
      this.position = start;
      this.wantedBytes *= 2;
      return new Uint8Array(0);
    }
  }

  private get trouble(): string {
    return this.checksum === undefined ? "no bzip2 header" : "damaged bzip2 data";
  }

  private readHeader(): Uint8Array {
    const size = this.decoder.header(this.bits) * BLOCK_BYTES;
    if (this.scratch.length !== size) this.scratch = new Int32Array(size);
    this.checksum = 0;
    this.wantedBytes = size + GROWTH_BYTES;
    return new Uint8Array(0);
  }

  private readBlock(before: number): Uint8Array {
    const { scratch } = this;
    let out = Buffer.allocUnsafe(scratch.length);
    let size = 0;
    const emit = (byte: number) => {
      if (size === out.length) out = Buffer.concat([out], size * 2);
      out[size] = byte;
      size += 1;
    };
    const after = this.decoder.decompress(this.bits, emit, scratch, scratch.length, before);
    this.checksum = after ?? undefined;
    this.wantedBytes = after === null ? HEADER_BYTES : scratch.length + GROWTH_BYTES;
    return out.subarray(0, size);
  }

  /** Drops what was decoded and takes in what was appended. */
  private join(): void {
    if (this.parts.length === 0) return;
    const rest = this.bytes.subarray(this.position >>> 3);
    this.bytes = Buffer.concat([rest, ...this.parts]);
    this.position &= 7;
    this.parts = [];
    this.partsBytes = 0;
  }

  private readonly bits: ReadBits = (count) => {
    if (count === null) {
      this.position = (this.position + 7) & ~7;
      return 0;
    }
    const { bytes, position } = this;
    const end = position + count;
    if (end > bytes.length * 8) throw new OutOfBytes();
    this.position = end;
    if (count === 1) return ((bytes[position >>> 3] as number) >>> (7 - (position & 7))) & 1;
    let value = 0;
    for (let at = position; at < end; ) {
      const left = 8 - (at & 7);
      const taken = Math.min(left, end - at);
      const byte = bytes[at >>> 3] as number;
      value = (value << taken) | ((byte >>> (left - taken)) & ((1 << taken) - 1));
      at += taken;
    }
    return value;
  };
}
