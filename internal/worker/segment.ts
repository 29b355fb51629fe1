import { MrError, messageOf } from "../model/errors.ts";
import type { AttemptId } from "../model/ids.ts";
import { CONTAINER } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import type { ByteRange } from "../model/segment_sizes.ts";
import { attemptOfMapOutput, type Source } from "../model/task.ts";
import type { LargeShare } from "../shuffle/large_memory.ts";
import { readBlocks, wholeSegment } from "../shuffle/run_format.ts";
import type { OpenSegment } from "../shuffle/spill.ts";

/** So many segments are read at the same time that large chunks would be too much memory. */
const SEGMENT_READ_BYTES = 64 * 1024;

/** What is read of which store, until when; `count` is told of every chunk. */
export interface SegmentReading {
  store: ObjectStore;
  signal: AbortSignal;
  count: (bytes: number) => void;
  /** For blocks of long lines. */
  memory: LargeShare;
}

/** Segments of adjacent map outputs that were merged before. */
export interface MergedSources {
  /** The index of the first. */
  first: number;
  sources: Source[];
  bytes: number;
  open: OpenSegment;
}

/** Map outputs are gone, or not what they were. */
export class LostOutput extends MrError {
  readonly attempts: AttemptId[];

  constructor(attempts: AttemptId[], message: string, cause: unknown) {
    super("corrupt", message, { cause });
    this.attempts = attempts;
  }
}

/** Every block that comes out of it is verified; what is not whole is a lost output. */
export async function* readSegment(
  reading: SegmentReading,
  source: Source,
  range: ByteRange,
): AsyncIterable<Buffer> {
  try {
    yield* readBlocks(
      wholeSegment(range.bytes, countedBytes(reading, source, range)),
      reading.memory,
    );
  } catch (error) {
    throw lostOutput(source, error);
  }
}

async function* countedBytes(
  { store, signal, count }: SegmentReading,
  source: Source,
  range: ByteRange,
): AsyncIterable<Uint8Array> {
  const chunks = store.read(CONTAINER.intermediate, source.object, {
    start: range.offset,
    length: range.bytes,
    signal,
    chunkBytes: SEGMENT_READ_BYTES,
    reuse: true,
  });
  for await (const chunk of chunks) {
    count(chunk.length);
    yield chunk;
  }
}

/** A map output that is gone or damaged is the system's loss, not an input that the user changed. */
export function lostOutput(source: Source, error: unknown): unknown {
  const isLost = ["not_found", "corrupt", "changed"].some((code) =>
    MrError.is(error, code as MrError["code"]),
  );
  const attempt = attemptOfMapOutput(source.object);
  if (!isLost || attempt === undefined) return error;
  return new LostOutput([attempt], `map output ${source.object}: ${messageOf(error)}`, error);
}
