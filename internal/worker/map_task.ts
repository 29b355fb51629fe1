import { PassThrough, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { MrError } from "../model/errors.ts";
import { isCompressed } from "../model/input_format.ts";
import { CONTAINER } from "../model/names.ts";
import { type InputRange, mapOutputName, type TaskOutput } from "../model/task.ts";
import { countLines, LineNormalizer } from "../shuffle/lines.ts";
import { MapOutput } from "../shuffle/map_output.ts";
import { SpillFolder } from "../shuffle/spill.ts";
import { readSplitRange } from "../shuffle/split_reader.ts";
import type { ScriptProcess } from "../streaming/script_process.ts";
import { committed, partWriter, stagePart, type TaskContext } from "./task_context.ts";

/** split -> script -> R sorted segments in one object; or, with no reducers, straight into a part. */
export async function runMapTask(context: TaskContext): Promise<TaskOutput> {
  const { assignment } = context;
  const { job, input } = assignment;
  if (input.kind !== "map") throw new MrError("internal", "not a map task");
  for (const range of input.split) context.progress.bytesTotal += range.length;
  return job.reduces > 0 ? mapToSegments(context, input.split) : mapToPart(context, input.split);
}

async function mapToSegments(context: TaskContext, split: InputRange[]): Promise<TaskOutput> {
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
  await runScript(context, split, async (chunk) => output.push(lines.push(chunk)));
  await output.push(lines.end());
  const object = mapOutputName(assignment.attempt);
  const staged = await store.stage(CONTAINER.intermediate, object, assignment.attempt);
  return committed(staged, async () => {
    const { size, indexOffset } = await output.writeTo((chunk) => {
      context.signal.throwIfAborted();
      return staged.write(chunk);
    });
    stats.recordsOut = output.records;
    stats.bytesOut = output.bytes;
    // Nobody else has this name: its own attempt may publish it.
    await store.publish(await staged.seal());
    return { kind: "segments", object, size, indexOffset };
  });
}

async function mapToPart(context: TaskContext, split: InputRange[]): Promise<TaskOutput> {
  const staged = await stagePart(context);
  return committed(staged, async () => {
    const write = partWriter(context, staged);
    await runScript(context, split, write.push);
    await write.end();
    return { kind: "part", receipt: await staged.seal() };
  });
}

/** Feeds the split to the script while its output is taken; both at the same time. */
async function runScript(
  context: TaskContext,
  split: InputRange[],
  onOutput: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  const script = await context.startScript(onOutput);
  const feeding = feedSplit(context, split, script);
  feeding.catch(() => undefined);
  const end = await script.ended;
  await feeding;
  context.signal.throwIfAborted();
  context.checkEnd(end, script.inputUnread);
}

async function feedSplit(
  context: TaskContext,
  split: InputRange[],
  script: ScriptProcess,
): Promise<void> {
  const { stats, progress } = context;
  try {
    for (const range of split) {
      for await (const chunk of recordsOf(context, range)) {
        stats.recordsIn += countLines(chunk);
        stats.bytesIn += chunk.length;
        progress.bytesIn = Math.min(stats.bytesIn, progress.bytesTotal);
        if (!(await script.write(chunk))) return;
      }
    }
  } finally {
    script.endInput();
  }
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
