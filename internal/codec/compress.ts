import { constants, createGzip, createZstdCompress } from "node:zlib";
import type { Compression } from "../model/contract.ts";
import { Pump, type ZlibStream } from "./pump.ts";

/** Takes bytes and hands them on compressed; one call at a time. */
export interface Compressor {
  /**
   * Resolves when more may follow.
   * @throws whatever the sink threw, from then on always.
   */
  write(chunk: Uint8Array): Promise<void>;
  /** Hands on what is held back, and the end mark; nothing may follow. */
  end(): Promise<void>;
  /** Gives it up: nothing more reaches the sink, except what it has already. */
  destroy(): void;
}

/** The same bytes give the same output, however they are cut and whenever. */
export function compressInto(
  kind: Compression,
  sink: (chunk: Uint8Array) => Promise<void>,
): Compressor {
  const pump = new Pump(open(kind));
  let failure: { cause: unknown } | undefined;
  const hand = async (output: () => AsyncIterable<Uint8Array>): Promise<void> => {
    try {
      if (failure !== undefined) throw failure.cause;
      for await (const chunk of output()) await sink(chunk);
    } catch (cause) {
      failure ??= { cause };
      pump.destroy();
      throw cause;
    }
  };
  return {
    write: async (chunk) => {
      if (chunk.length > 0) await hand(() => pump.push(chunk));
    },
    end: () => hand(() => pump.end()),
    destroy: () => pump.destroy(),
  };
}

const CHUNK_BYTES = 65_536;
const GZIP_LEVEL = 6;
const ZSTD_LEVEL = 3;

function open(kind: Compression): ZlibStream {
  if (kind === "gzip") return createGzip({ level: GZIP_LEVEL, chunkSize: CHUNK_BYTES });
  const params = { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL };
  return createZstdCompress({ params, chunkSize: CHUNK_BYTES });
}
