import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import type { Compression } from "../model/contract.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { bunzip2 } from "./bunzip2.ts";
import { Pump, type ZlibStream } from "./pump.ts";

/**
 * What was compressed, by the ending of its name: `.gz`, `.zst`, `.bz2`; the bytes of any other
 * name as they are. Members, frames and streams may follow one another. No more is read than
 * what was taken needs; a chunk of `bytes` is done with when the next is asked for.
 * @throws MrError `user` when the bytes are damaged or end too early; what `bytes` throws, as it is.
 */
export function decompress(
  name: string,
  bytes: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  if (name.endsWith(".gz")) return gunzip(name, bytes);
  if (name.endsWith(".zst")) return inflated(bytes, zstd, faultOf(name));
  if (name.endsWith(".bz2")) return bunzip2(bytes, faultOf(name));
  return bytes;
}

/** The same for gzip, whatever the name. */
export function gunzip(name: string, bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  return inflated(bytes, gzip, faultOf(name));
}

/**
 * What a job has compressed (compress.ts), or whoever may write there has put in its place: it
 * gets no larger window than ours, for which nobody who reads needs much memory.
 * @throws as `decompress`
 */
export function expand(
  kind: Compression | undefined,
  name: string,
  bytes: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  if (kind === undefined) return bytes;
  return inflated(bytes, kind === "gzip" ? gzip : ownZstd, faultOf(name));
}

type Fault = (cause: unknown) => Error;

function faultOf(name: string): Fault {
  return (cause) =>
    new MrError("user", `${name} cannot be decompressed: ${messageOf(cause)}`, { cause });
}

interface Format {
  open: () => ZlibStream;
  /** Whether zeros may follow a part, as tapes have them. */
  padded: boolean;
}

const CHUNK_BYTES = 65_536;
const gzip: Format = { open: () => createGunzip({ chunkSize: CHUNK_BYTES }), padded: true };
const zstd: Format = {
  open: () => createZstdDecompress({ chunkSize: CHUNK_BYTES }),
  padded: false,
};
/** 8 MiB; level 3 makes windows of 2 MiB. */
const OWN_WINDOW_LOG = 23;
const ownZstd: Format = {
  open: () =>
    createZstdDecompress({
      chunkSize: CHUNK_BYTES,
      params: { [constants.ZSTD_d_windowLogMax]: OWN_WINDOW_LOG },
    }),
  padded: false,
};

async function* inflated(
  bytes: AsyncIterable<Uint8Array>,
  format: Format,
  fault: Fault,
): AsyncGenerator<Uint8Array> {
  let pump: Pump | undefined;
  let anyPart = false;
  try {
    for await (const chunk of bytes) {
      for (let rest = chunk; rest.length > 0; ) {
        if (pump === undefined && anyPart && format.padded) rest = withoutZeros(rest);
        if (rest.length === 0) break;
        pump ??= new Pump(format.open());
        anyPart = true;
        const before: number = pump.consumed;
        yield* blaming(pump.push(rest), fault);
        rest = rest.subarray(pump.consumed - before);
        if (rest.length > 0) {
          // Its part of the bytes has ended, and node's stream with it: a new one for the next.
          pump.destroy();
          pump = undefined;
        }
      }
    }
    if (pump !== undefined) yield* blaming(pump.end(), fault);
  } finally {
    pump?.destroy();
  }
}

async function* blaming(
  chunks: AsyncIterable<Uint8Array>,
  fault: Fault,
): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (cause) {
    throw fault(cause);
  }
}

function withoutZeros(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  return first < 0 ? bytes.subarray(bytes.length) : bytes.subarray(first);
}
