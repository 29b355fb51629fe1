import { MrError, messageOf } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import { CONTAINER } from "../model/names.ts";
import { readAll } from "../model/object_store.ts";
import { attemptOfMapOutput, type Segments } from "../model/task.ts";
import { ReduceInput } from "../shuffle/reduce_input.ts";
import {
  INDEX_ENTRY_BYTES,
  type IndexEntry,
  parseIndexEntry,
  readBlocks,
  wholeSegment,
} from "../shuffle/run_format.ts";
import { mergeSegments, type OpenSegment, SpillFolder } from "../shuffle/spill.ts";
import type { Script } from "../streaming/script.ts";
import {
  committed,
  LostOutput,
  partWriter,
  runScript,
  stagePart,
  type TaskContext,
  type TaskMade,
} from "./task_context.ts";

const INDEX_READS_AT_A_TIME = 8;

/** One segment of every map output -> merge -> script -> a staged part. */
export async function runReduceTask(context: TaskContext): Promise<TaskMade> {
  const { input } = context.assignment;
  if (input.kind !== "reduce") throw new MrError("internal", "not a reduce task");
  await failurePoint("worker.reduce.before-read");
  const segments = await locateSegments(context, input.sources, input.partition);
  const staged = await stagePart(context);
  return committed(staged, async () => {
    const part = partWriter(context, staged);
    await runScript(context, (script) => feedMerged(context, segments, script), part.push);
    await part.end();
    await failurePoint("worker.reduce.before-seal");
    const receipt = await staged.seal();
    await failurePoint("worker.reduce.after-seal");
    return { output: { kind: "part", receipt } };
  });
}

class InputClosed extends Error {}

async function feedMerged(
  context: TaskContext,
  segments: OpenSegment[],
  script: Script,
): Promise<void> {
  const input = new ReduceInput(async (chunk) => {
    context.signal.throwIfAborted();
    if (!(await script.write(chunk))) throw new InputClosed();
  });
  try {
    await mergeSegments(segments, input, new SpillFolder(context.folder.spill));
  } catch (error) {
    // The script reads no more: how it ended decides what that means.
    if (!(error instanceof InputClosed)) throw error;
  } finally {
    context.stats.recordsIn = input.records;
  }
}

/** Reads this partition's entry of every map output's index, a few at a time. */
async function locateSegments(
  context: TaskContext,
  sources: Segments[],
  partition: number,
): Promise<OpenSegment[]> {
  const found: (OpenSegment | undefined)[] = new Array(sources.length);
  let next = 0;
  const lane = async () => {
    while (next < sources.length) {
      const index = next++;
      const source = sources[index] as Segments;
      const entry = await readIndexEntry(context, source, partition);
      context.progress.bytesTotal += entry.bytes;
      if (entry.bytes > 0) found[index] = () => readSegment(context, source, entry);
    }
  };
  await Promise.all(Array.from({ length: INDEX_READS_AT_A_TIME }, lane));
  return found.filter((segment) => segment !== undefined);
}

async function readIndexEntry(
  context: TaskContext,
  source: Segments,
  partition: number,
): Promise<IndexEntry> {
  try {
    const start = source.indexOffset + partition * INDEX_ENTRY_BYTES;
    const bytes = await readAll(
      context.store.read(CONTAINER.intermediate, source.object, {
        start,
        length: INDEX_ENTRY_BYTES,
        signal: context.signal,
      }),
    );
    return parseIndexEntry(bytes);
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
