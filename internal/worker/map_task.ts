import { PassThrough, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { MrError } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import { isCompressed } from "../model/input_format.ts";
import { CONTAINER } from "../model/names.ts";
import { type BadRecords, type InputRange, mapOutputName, type TaskInput } from "../model/task.ts";
import { countLines, LineNormalizer } from "../shuffle/lines.ts";
import { MapOutput } from "../shuffle/map_output.ts";
import { SpillFolder } from "../shuffle/spill.ts";
import { readSplitRange } from "../shuffle/split_reader.ts";
import type { Script } from "../streaming/script.ts";
import { runNarrowed } from "./narrow.ts";
import {
  committed,
  partWriter,
  runScript,
  stagePart,
  type TaskContext,
  type TaskMade,
} from "./task_context.ts";

/** split -> script -> R sorted segments in one object; or, with no reducers, straight into a part. */
export async function runMapTask(context: TaskContext): Promise<TaskMade> {
  const { job, input } = context.assignment;
  if (input.kind !== "map") throw new MrError("internal", "not a map task");
  for (const range of input.split) context.progress.bytesTotal += range.length;
  const run = (onOutput: OnOutput) => runMapper(context, input, onOutput);
  return job.reduces > 0 ? mapToSegments(context, run) : mapToPart(context, run);
}

type OnOutput = (chunk: Uint8Array) => Promise<void>;
type RunMapper = (onOutput: OnOutput) => Promise<BadRecords | undefined>;

async function mapToSegments(context: TaskContext, run: RunMapper): Promise<TaskMade> {
  const { store, options, assignment, stats } = context;
  const output = new MapOutput(
    {
      partitions: assignment.job.reduces,
      sortBytes: options.sortBytes,
      lineBytesMax: options.lineBytesMax,
      compress: store.remote,
    },
    new SpillFolder(context.folder.spill),
  );
  const lines = new LineNormalizer();
  const bad = await run(async (chunk) => output.push(lines.push(chunk)));
  await output.push(lines.end());
  const object = mapOutputName(assignment.attempt);
  await failurePoint("worker.map.before-upload");
  const staged = await store.stage(
    CONTAINER.intermediate,
    object,
    assignment.attempt,
    context.signal,
  );
  return committed(staged, async () => {
    const { size, indexOffset } = await output.writeTo((chunk) => {
      context.signal.throwIfAborted();
      return staged.write(chunk);
    });
    stats.recordsOut = output.records;
    stats.bytesOut = output.bytes;
    const receipt = await staged.seal();
    await failurePoint("worker.map.after-upload");
    // Nobody else has this name: its own attempt may publish it.
    await store.publish(receipt, context.signal);
    await failurePoint("worker.map.after-publish");
    return { output: { kind: "segments", object, size, indexOffset, digest: output.digest }, bad };
  });
}

async function mapToPart(context: TaskContext, run: RunMapper): Promise<TaskMade> {
  const staged = await stagePart(context);
  return committed(staged, async () => {
    const write = partWriter(context, staged);
    const bad = await run(write.push);
    await write.end();
    return { output: { kind: "part", receipt: await staged.seal() }, bad };
  });
}

/** Feeds the split to the script while its output is taken; both at the same time. */
async function runMapper(
  context: TaskContext,
  { split, narrow }: Extract<TaskInput, { kind: "map" }>,
  onOutput: OnOutput,
): Promise<BadRecords | undefined> {
  if (narrow) return runNarrowed(context, recordsOfSplit(context, split), onOutput);
  await runScript(context, (script) => feedSplit(context, split, script), onOutput);
  return undefined;
}

async function feedSplit(context: TaskContext, split: InputRange[], script: Script): Promise<void> {
  const { stats, progress } = context;
  for await (const chunk of recordsOfSplit(context, split)) {
    stats.recordsIn += countLines(chunk);
    stats.bytesIn += chunk.length;
    progress.bytesIn = Math.min(stats.bytesIn, progress.bytesTotal);
    if (!(await script.write(chunk))) return;
  }
}

async function* recordsOfSplit(context: TaskContext, split: InputRange[]) {
  for (const range of split) yield* recordsOf(context, range);
}

function recordsOf(context: TaskContext, range: InputRange): AsyncIterable<Uint8Array> {
  const read = (of: InputRange, start: number, length: number) =>
    context.store.read(of.container, of.name, {
      start,
      length,
      etag: of.etag,
      signal: context.signal,
    });
  if (!isCompressed(range.name)) return readSplitRange(range, read);
  return normalized(decompressed(range.name, read(range, 0, range.size)));
}

async function* decompressed(
  name: string,
  bytes: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  const out = new PassThrough();
  const done = pipeline(Readable.from(bytes), createGunzip(), out);
  done.catch(() => undefined);
  try {
    yield* out as AsyncIterable<Buffer>;
    await done;
  } catch (cause) {
    if (cause instanceof MrError) throw cause;
    throw new MrError("user", `${name} cannot be decompressed: ${(cause as Error).message}`, {
      cause,
    });
  }
}

async function* normalized(bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const lines = new LineNormalizer();
  for await (const chunk of bytes) yield lines.push(chunk);
  yield lines.end();
}
