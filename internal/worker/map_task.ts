import { decompress } from "../codec/decompress.ts";
import { isIdentity } from "../model/builtins.ts";
import { MrError } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import { isCompressed } from "../model/input_format.ts";
import { CONTAINER } from "../model/names.ts";
import { encodeSizes } from "../model/segment_sizes.ts";
import {
  type BadRecords,
  type InputRange,
  mapOutputName,
  type Split,
  type TaskInput,
} from "../model/task.ts";
import { gathered } from "../shuffle/gathered.ts";
import { KeyIndexWriter } from "../shuffle/key_index.ts";
import { countLines, LineNormalizer, piecesOf } from "../shuffle/lines.ts";
import { OffsetLines } from "../shuffle/offset_lines.ts";
import { PairSorter } from "../shuffle/pair_sorter.ts";
import { partitionerOf } from "../shuffle/partitioner.ts";
import { BLOCK_BYTES, RunWriter } from "../shuffle/run_format.ts";
import { type Extent, type RecordLines, readSplitRange } from "../shuffle/split_reader.ts";
import { combinerOfTask } from "./combine.ts";
import { runNarrowed } from "./narrow.ts";
import { type Printed, partWriter } from "./part_writer.ts";
import { wholeOf } from "./split_input.ts";
import {
  committed,
  pairsOf,
  runScript,
  stagePart,
  type TaskContext,
  type TaskMade,
} from "./task_context.ts";

type MapInput = Extract<TaskInput, { kind: "map" }>;

/** split -> script -> R sorted segments in one object; or, with no reducers, straight into a part. */
export async function runMapTask(context: TaskContext): Promise<TaskMade> {
  const { job, input } = context.assignment;
  if (input.kind !== "map") throw new MrError("internal", "not a map task");
  for (const range of input.split) context.progress.bytesTotal += range.length;
  return job.reduces > 0 ? mapToSegments(context, input) : mapToPart(context, input);
}

async function mapToSegments(context: TaskContext, input: MapInput): Promise<TaskMade> {
  const { store, assignment, stats, contract, options, spill } = context;
  const partitions = assignment.job.reduces;
  using sorter = new PairSorter(
    {
      ...pairsOf(context, contract.mapOutput),
      partitions,
      partitioner: partitionerOf(contract, partitions),
      sortBytes: options.sortBytes,
    },
    spill,
    combinerOfTask(context),
  );
  const lines = new LineNormalizer();
  const push = (chunk: Uint8Array) => sorter.push(lines.push(chunk));
  const bad = await runMapper(context, input, { push, endLine: () => push(lines.end()) });
  await sorter.end();
  const object = mapOutputName(assignment.attempt);
  await failurePoint("worker.map.before-upload");
  const staged = await store.stage(
    CONTAINER.intermediate,
    object,
    assignment.attempt,
    context.signal,
  );
  return await committed(staged, async () => {
    const write = (chunk: Uint8Array) => {
      context.signal.throwIfAborted();
      return staged.write(chunk);
    };
    const keyIndex = keyIndexOf(context);
    const writer = new RunWriter(write, { compress: store.remote, ...(keyIndex && { keyIndex }) });
    await sorter.writeTo(writer);
    const indexOffset = await writer.end();
    stats.recordsOut = sorter.records;
    stats.bytesOut = sorter.bytes;
    await failurePoint("worker.map.before-publish");
    await staged.publish();
    await failurePoint("worker.map.after-publish");
    const { size } = writer;
    const sizes = encodeSizes(writer.index.map(({ bytes }) => bytes));
    const { digest } = sorter;
    return { output: { kind: "segments", object, size, indexOffset, digest, sizes }, bad };
  });
}

/** Its blocks are so small that a reduce reads little beyond its range. */
function keyIndexOf({ contract, assignment, progress, order }: TaskContext) {
  const { reduces } = assignment.job;
  if (contract.partitioner.kind !== "range" || reduces === 1) return undefined;
  const blockBytes = Math.floor(progress.bytesTotal / reduces / BLOCKS_PER_RANGE);
  return new KeyIndexWriter(Math.max(BLOCK_BYTES_MIN, Math.min(BLOCK_BYTES, blockBytes)), order);
}

const BLOCKS_PER_RANGE = 32;
const BLOCK_BYTES_MIN = 1024;

async function mapToPart(context: TaskContext, input: MapInput): Promise<TaskMade> {
  const staged = await stagePart(context);
  return committed(staged, async () => {
    const part = partWriter(context, staged, context.contract.mapOutput);
    const bad = await runMapper(context, input, part);
    await part.end();
    return { output: { kind: "part", receipt: await staged.seal() }, bad };
  });
}

/** What each run of the mapper reads: the whole split, or one file. */
export async function runsOf(context: TaskContext, split: Split): Promise<Split[]> {
  const perFile = split.length > 1 && (await context.scripts.asksForInputFile(context.signal));
  return perFile ? split.map((range) => [range]) : [split];
}

/** Feeds the split to the mapper while its output is taken; both at the same time. */
async function runMapper(
  context: TaskContext,
  { split, narrow }: MapInput,
  printed: Printed,
): Promise<BadRecords | undefined> {
  if (isIdentity(context.assignment.job.command)) return passRecords(context, split, printed);
  if (narrow) return runNarrowed(context, split[0], recordsOfSplit(context, split), printed);
  for (const part of await runsOf(context, split)) {
    await runScript(context, {
      role: "map",
      range: part[0],
      feed: async (script) => {
        for await (const chunk of counted(context, part)) if (!(await script.write(chunk))) return;
      },
      onOutput: printed.push,
    });
    await printed.endLine();
  }
  return undefined;
}

/** The built-in mapper: what it reads is what it prints. */
async function passRecords(context: TaskContext, split: Split, printed: Printed) {
  for await (const chunk of counted(context, split)) {
    context.signal.throwIfAborted();
    await printed.push(chunk);
  }
  return undefined;
}

async function* counted(context: TaskContext, split: Split): AsyncIterable<Uint8Array> {
  const { stats, progress } = context;
  for await (const chunk of gathered(recordsOfSplit(context, split))) {
    stats.recordsIn += countLines(chunk);
    stats.bytesIn += chunk.length;
    progress.bytesIn = Math.min(stats.bytesIn, progress.bytesTotal);
    yield chunk;
  }
}

export async function* recordsOfSplit(context: TaskContext, split: Split) {
  for (const range of split) yield* recordsOf(context, range);
}

export function recordsOf(
  context: TaskContext,
  range: InputRange,
  { separator, withOffset } = context.contract.mapInput,
): AsyncIterable<Uint8Array> {
  const linesFrom = (offset: number): RecordLines =>
    withOffset ? new OffsetLines(offset, separator) : new LineNormalizer();
  const whole = (of: InputRange, extent: Extent) => context.input.read(of, extent);
  // Every line becomes longer: many empty ones are many times as much.
  const read = withOffset ? (of: InputRange, extent: Extent) => inPieces(whole(of, extent)) : whole;
  if (!isCompressed(range.name)) return readSplitRange(range, read, linesFrom);
  const bytes = decompress(range.name, whole(range, wholeOf(range)));
  return recordsIn(withOffset ? inPieces(bytes) : bytes, linesFrom(0));
}

const PIECE_BYTES = 16 * 1024;

async function* inPieces(chunks: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  for await (const chunk of chunks) yield* piecesOf(chunk, PIECE_BYTES);
}

async function* recordsIn(
  bytes: AsyncIterable<Uint8Array>,
  lines: RecordLines,
): AsyncIterable<Uint8Array> {
  for await (const chunk of bytes) yield lines.push(chunk);
  yield lines.end();
}
