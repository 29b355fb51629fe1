import { CONTAINER } from "../model/names.ts";
import { readAll } from "../model/object_store.ts";
import type { ByteRange } from "../model/segment_sizes.ts";
import type { Source, TaskInput } from "../model/task.ts";
import { bytesOfRange, parseKeyIndex } from "../shuffle/key_index.ts";
import { INDEX_ENTRY_BYTES, parseIndexEntry } from "../shuffle/run_format.ts";
import type { OpenSegment } from "../shuffle/spill.ts";
import { lostOutput, type MergedSources, readSegment } from "./segment.ts";
import type { TaskContext } from "./task_context.ts";

type ReduceTaskInput = Extract<TaskInput, { kind: "reduce" }>;

/** Shown with the script's own. */
const EARLY_COUNTER = "mr,map outputs merged early";

const INDEX_READS_AT_A_TIME = 8;

/** What this task reads of every map output. */
export async function findSegments(
  context: TaskContext,
  input: ReduceTaskInput,
  merged: MergedSources[] = [],
): Promise<OpenSegment[]> {
  const { stats, progress } = context;
  const count = (bytes: number) => {
    stats.bytesIn += bytes;
    progress.bytesIn = stats.bytesIn;
  };
  const { sources } = input;
  const { store, signal, spill } = context;
  const { memory } = spill;
  const found: (OpenSegment | undefined)[] = new Array(sources.length);
  const isMerged = new Set<number>();
  for (const run of merged.filter(({ first, sources: of }) => isOf(of, sources, first))) {
    for (let i = 0; i < run.sources.length; i += 1) isMerged.add(run.first + i);
    found[run.first] = run.open;
    progress.bytesTotal += run.bytes;
    count(run.bytes);
  }
  if (isMerged.size > 0) stats.counters[EARLY_COUNTER] = isMerged.size;
  let next = 0;
  const lane = async () => {
    while (next < sources.length) {
      const index = next++;
      if (isMerged.has(index)) continue;
      const source = sources[index] as Source;
      const range = source.at ?? (await readIndex(context, source, input));
      context.progress.bytesTotal += range.bytes;
      if (range.bytes > 0)
        found[index] = () => readSegment({ store, signal, count, memory }, source, range);
    }
  };
  await Promise.all(Array.from({ length: INDEX_READS_AT_A_TIME }, lane));
  return found.filter((segment) => segment !== undefined);
}

/** Whether they are what the task reads there: an output that was lost has another name when it is made again. */
function isOf(merged: Source[], sources: Source[], first: number): boolean {
  return merged.every(({ object }, i) => object === sources[first + i]?.object);
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
