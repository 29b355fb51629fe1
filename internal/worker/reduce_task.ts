import { MrError } from "../model/errors.ts";
import { CONTAINER } from "../model/names.ts";
import { readAll } from "../model/object_store.ts";
import type { Segments, TaskOutput } from "../model/task.ts";
import { ReduceInput } from "../shuffle/reduce_input.ts";
import {
  INDEX_ENTRY_BYTES,
  type IndexEntry,
  parseIndexEntry,
  wholeSegment,
} from "../shuffle/run_format.ts";
import { mergeSegments, type OpenSegment, SpillFolder } from "../shuffle/spill.ts";
import type { ScriptProcess } from "../streaming/script_process.ts";
import { committed, partWriter, stagePart, type TaskContext } from "./task_context.ts";

const INDEX_READS_AT_A_TIME = 8;

/** One segment of every map output -> merge -> script -> a staged part. */
export async function runReduceTask(context: TaskContext): Promise<TaskOutput> {
  const { input } = context.assignment;
  if (input.kind !== "reduce") throw new MrError("internal", "not a reduce task");
  const segments = await locateSegments(context, input.sources, input.partition);
  const staged = await stagePart(context);
  return committed(staged, async () => {
    const part = partWriter(context, staged);
    const script = await context.startScript(part.push);
    const feeding = feedMerged(context, segments, script);
    feeding.catch(() => undefined);
    const end = await script.ended;
    await feeding;
    context.signal.throwIfAborted();
    context.checkEnd(end, script.inputUnread);
    await part.end();
    return { kind: "part", receipt: await staged.seal() };
  });
}

class InputClosed extends Error {}

async function feedMerged(
  context: TaskContext,
  segments: OpenSegment[],
  script: ScriptProcess,
): Promise<void> {
  const input = new ReduceInput(async (chunk) => {
    context.signal.throwIfAborted();
    if (!(await script.write(chunk))) throw new InputClosed();
  });
  try {
    await mergeSegments(segments, input, new SpillFolder(context.folder.spill));
  } catch (error) {
    // The script reads no more: how it ended decides what that means.
    if (!(error instanceof InputClosed)) throw lostOutput(error);
  } finally {
    context.stats.recordsIn = input.records;
    script.endInput();
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
    throw lostOutput(error);
  }
}

async function* readSegment(
  context: TaskContext,
  source: Segments,
  entry: IndexEntry,
): AsyncIterable<Uint8Array> {
  const chunks = context.store.read(CONTAINER.intermediate, source.object, {
    start: entry.offset,
    length: entry.bytes,
    signal: context.signal,
  });
  for await (const chunk of wholeSegment(entry.bytes, chunks)) {
    context.stats.bytesIn += chunk.length;
    context.progress.bytesIn = context.stats.bytesIn;
    yield chunk;
  }
}

/** A missing map output is the system's loss, not an input that the user changed. */
function lostOutput(error: unknown): unknown {
  if (MrError.is(error, "not_found"))
    return new MrError("corrupt", "a map output is gone", { cause: error });
  return error;
}
