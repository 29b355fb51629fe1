import { type Builtin, builtinReducer } from "../model/builtins.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import { CONTAINER } from "../model/names.ts";
import { readAll } from "../model/object_store.ts";
import { attemptOfMapOutput, type Segments, type TaskInput } from "../model/task.ts";
import { OUTPUT } from "../shuffle/kernel/functions.ts";
import { bytesOfRange, parseKeyIndex } from "../shuffle/key_index.ts";
import { mergedPairs } from "../shuffle/merge.ts";
import {
  INDEX_ENTRY_BYTES,
  type IndexEntry,
  parseIndexEntry,
  readBlocks,
  wholeSegment,
} from "../shuffle/run_format.ts";
import { eachPair, type SortedPairs } from "../shuffle/sorted_pairs.ts";
import type { OpenSegment } from "../shuffle/spill.ts";
import { BuiltinReducer } from "../streaming/builtins/builtin_reducer.ts";
import { type PartWriter, partWriter } from "./part_writer.ts";
import {
  committed,
  feedPairs,
  LostOutput,
  runScript,
  stagePart,
  type TaskContext,
  type TaskMade,
} from "./task_context.ts";

const INDEX_READS_AT_A_TIME = 8;
/** So many segments are read at the same time that large chunks would be too much memory. */
const SEGMENT_READ_BYTES = 256 * 1024;

type ReduceTaskInput = Extract<TaskInput, { kind: "reduce" }>;

/** One segment of every map output -> merge -> script -> a staged part. */
export async function runReduceTask(context: TaskContext): Promise<TaskMade> {
  const { input } = context.assignment;
  if (input.kind !== "reduce") throw new MrError("internal", "not a reduce task");
  await failurePoint("worker.reduce.before-read");
  const pairs = pairsOfReduce(context, input);
  const staged = await stagePart(context);
  return committed(staged, async () => {
    const part = partWriter(context, staged, context.contract.reduceOutput);
    context.stats.recordsIn = await reduce(context, pairs, part);
    await part.end();
    await failurePoint("worker.reduce.before-seal");
    const receipt = await staged.seal();
    await failurePoint("worker.reduce.after-seal");
    return { output: { kind: "part", receipt } };
  });
}

/** The pairs of a reduce task in order, from all map outputs; looked for when they are wanted. */
export function pairsOfReduce(context: TaskContext, input: ReduceTaskInput): SortedPairs {
  return {
    async give(as, take, blockBytes) {
      const segments = await locateSegments(context, input);
      const pairs = mergedPairs(segments, context.order, context.spill, input.keys);
      return pairs.give(as, take, blockBytes);
    },
  };
}

/** @returns how many pairs were reduced. */
async function reduce(context: TaskContext, pairs: SortedPairs, part: PartWriter): Promise<number> {
  const builtin = builtinReducer(context.assignment.job.command);
  if (builtin !== undefined) return reduceWithout(context, builtin, pairs, part);
  let records = 0;
  await runScript(context, {
    role: "reduce",
    feed: async (script) => {
      records = await feedPairs(context, pairs, script);
    },
    onOutput: part.push,
  });
  return records;
}

const OUTPUT_BYTES = 64 * 1024;

/** Without a script: by a built-in reducer. */
async function reduceWithout(
  context: TaskContext,
  name: Builtin,
  pairs: SortedPairs,
  part: PartWriter,
): Promise<number> {
  const { signal, contract } = context;
  const write = (chunk: Uint8Array) => {
    signal.throwIfAborted();
    return part.push(chunk);
  };
  if (name === "identity") return pairs.give(OUTPUT.lines, write);
  const between = Buffer.from(contract.reduceOutput.separator);
  const lf = Buffer.from("\n");
  let lines: Buffer[] = [];
  let bytes = 0;
  const reducer = new BuiltinReducer({
    name,
    role: "reduce",
    separatorBytes: Buffer.byteLength(contract.reduceInput.separator),
    emit(key, value) {
      lines.push(key, between, value, lf);
      bytes += key.length + value.length;
      return bytes >= OUTPUT_BYTES;
    },
    async flush() {
      await write(Buffer.concat(lines));
      [lines, bytes] = [[], 0];
    },
  });
  const records = await eachPair(pairs, reducer);
  await reducer.end();
  return records;
}

/** Reads this partition's entry of every map output's index, a few at a time. */
async function locateSegments(
  context: TaskContext,
  input: ReduceTaskInput,
): Promise<OpenSegment[]> {
  const { sources } = input;
  const found: (OpenSegment | undefined)[] = new Array(sources.length);
  let next = 0;
  const lane = async () => {
    while (next < sources.length) {
      const index = next++;
      const source = sources[index] as Segments;
      const entry = await locateIn(context, source, input);
      context.progress.bytesTotal += entry.bytes;
      if (entry.bytes > 0) found[index] = () => readSegment(context, source, entry);
    }
  };
  await Promise.all(Array.from({ length: INDEX_READS_AT_A_TIME }, lane));
  return found.filter((segment) => segment !== undefined);
}

/** The bytes of a map output that this task reads. */
async function locateIn(
  context: TaskContext,
  source: Segments,
  { partition, keys }: ReduceTaskInput,
): Promise<IndexEntry> {
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
  source: Segments,
  entry: IndexEntry,
): AsyncIterable<Buffer> {
  try {
    yield* readBlocks(wholeSegment(entry.bytes, countedBytes(context, source, entry)));
  } catch (error) {
    throw lostOutput(source, error);
  }
}

async function* countedBytes(
  context: TaskContext,
  source: Segments,
  entry: IndexEntry,
): AsyncIterable<Uint8Array> {
  const chunks = context.store.read(CONTAINER.intermediate, source.object, {
    start: entry.offset,
    length: entry.bytes,
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
function lostOutput(source: Segments, error: unknown): unknown {
  const isLost = ["not_found", "corrupt", "changed"].some((code) =>
    MrError.is(error, code as MrError["code"]),
  );
  const attempt = attemptOfMapOutput(source.object);
  if (!isLost || attempt === undefined) return error;
  return new LostOutput([attempt], `map output ${source.object}: ${messageOf(error)}`, error);
}
