import { MrError, messageOf } from "../model/errors.ts";
import { CONTAINER } from "../model/names.ts";
import { readAll } from "../model/object_store.ts";
import type { ByteRange } from "../model/segment_sizes.ts";
import { attemptOfMapOutput, type Source, type TaskInput } from "../model/task.ts";
import { bytesOfRange, parseKeyIndex } from "../shuffle/key_index.ts";
import {
  INDEX_ENTRY_BYTES,
  parseIndexEntry,
  readBlocks,
  wholeSegment,
} from "../shuffle/run_format.ts";
import type { OpenSegment } from "../shuffle/spill.ts";
import { LostOutput, type TaskContext } from "./task_context.ts";

type ReduceTaskInput = Extract<TaskInput, { kind: "reduce" }>;

const INDEX_READS_AT_A_TIME = 8;
/** So many segments are read at the same time that large chunks would be too much memory. */
const SEGMENT_READ_BYTES = 256 * 1024;

/** What this task reads of every map output. */
export async function findSegments(
  context: TaskContext,
  input: ReduceTaskInput,
): Promise<OpenSegment[]> {
  const { sources } = input;
  const found: (OpenSegment | undefined)[] = new Array(sources.length);
  let next = 0;
  const lane = async () => {
    while (next < sources.length) {
      const index = next++;
      const source = sources[index] as Source;
      const range = source.at ?? (await readIndex(context, source, input));
      context.progress.bytesTotal += range.bytes;
      if (range.bytes > 0) found[index] = () => readSegment(context, source, range);
    }
  };
  await Promise.all(Array.from({ length: INDEX_READS_AT_A_TIME }, lane));
  return found.filter((segment) => segment !== undefined);
}

/** Where its record does not say it: a request more. */
async function readIndex(
  context: TaskContext,
  source: Source,
  { partition, keys }: ReduceTaskInput,
): Promise<ByteRange> {
  const { indexOffset, size, object } = source;
  const read = (start: number, length: number) => {
    const { store, signal } = context;
    return readAll(store.read(CONTAINER.intermediate, object, { start, length, signal }));
  };
  try {
    if (keys === undefined) {
      const start = indexOffset + partition * INDEX_ENTRY_BYTES;
      return parseIndexEntry(await read(start, INDEX_ENTRY_BYTES));
    }
    const index = parseKeyIndex(await read(indexOffset, size - indexOffset));
    return bytesOfRange(index, keys, context.order);
  } catch (error) {
    throw lostOutput(source, error);
  }
}

/** Every block that comes out of it is verified; what is not whole is a lost output. */
async function* readSegment(
  context: TaskContext,
  source: Source,
  range: ByteRange,
): AsyncIterable<Buffer> {
  try {
    yield* readBlocks(wholeSegment(range.bytes, countedBytes(context, source, range)));
  } catch (error) {
    throw lostOutput(source, error);
  }
}

async function* countedBytes(
  context: TaskContext,
  source: Source,
  range: ByteRange,
): AsyncIterable<Uint8Array> {
  const chunks = context.store.read(CONTAINER.intermediate, source.object, {
    start: range.offset,
    length: range.bytes,
    signal: context.signal,
    chunkBytes: SEGMENT_READ_BYTES,
    reuse: true,
  });
  for await (const chunk of chunks) {
    context.stats.bytesIn += chunk.length;
    context.progress.bytesIn = context.stats.bytesIn;
    yield chunk;
  }
}

/** A map output that is gone or damaged is the system's loss, not an input that the user changed. */
function lostOutput(source: Source, error: unknown): unknown {
  const isLost = ["not_found", "corrupt", "changed"].some((code) =>
    MrError.is(error, code as MrError["code"]),
  );
  const attempt = attemptOfMapOutput(source.object);
  if (!isLost || attempt === undefined) return error;
  return new LostOutput([attempt], `map output ${source.object}: ${messageOf(error)}`, error);
}
