import { type FileHandle, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isBuiltin } from "../model/builtins.ts";
import { MrError, messageOf } from "../model/errors.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { type Assignment, type InputRange, newProgress, type Split } from "../model/task.ts";
import { OUTPUT } from "../shuffle/kernel/functions.ts";
import { UNCOUNTED } from "../shuffle/large_memory.ts";
import { writeFully } from "../shuffle/spill.ts";
import { StderrLog } from "../streaming/stderr.ts";
import { Scratch } from "./attempt_files.ts";
import { combinerOfTask } from "./combine.ts";
import { recordsOf, recordsOfSplit, runMapTask, runsOf } from "./map_task.ts";
import { pairsOfReduce, runReduceTask } from "./reduce_task.ts";
import { SplitInput } from "./split_input.ts";
import {
  openContext,
  runScript,
  type TaskContext,
  type TaskRunnerOptions,
} from "./task_context.ts";

export interface ReplayOptions {
  assignment: Assignment;
  /** Reads are the job's; what is staged or published there must not matter. */
  store: ObjectStore;
  /** Exists and is empty, and is the runner's too: what is left here is for a person and a debugger. */
  folder: string;
  options: Omit<TaskRunnerOptions, "scratch" | "layouts">;
  signal: AbortSignal;
  /** Takes what the script writes to stderr, and what is worth knowing on the way. */
  say: (text: string) => void;
}

export interface Replayed {
  /** Why it failed; undefined: it did not. */
  failure: string | undefined;
  culprit: Culprit | undefined;
  /** Files with what the script read, in order of its runs. */
  inputs: string[];
}

/** The record that a script was at when it failed. */
export interface Culprit {
  /** Its number in what the script read, from 1; 0: it failed before it could read any. */
  record: number;
  /** At most the beginning of it. */
  line: Buffer;
  /** CONTAINER/NAME and the record's first byte in it (of a compressed file, decompressed); in a mapper. */
  place: { blob: string; offset: number } | undefined;
}

/**
 * Runs a task again, here: the same bytes, files and environment. Leaves in the folder
 *
 *   input      what the script read (input.2, ... where it ran once for each file)
 *   output     what it printed
 *   run/work   its working directory
 *   run.sh     the same run once more, by hand
 *
 * When it fails, the record is looked for at which it does: the last one of the
 * shortest beginning of the input on which it fails as well.
 */
export async function replayTask(replay: ReplayOptions): Promise<Replayed> {
  const context = await contextIn(replay);
  const { input, job } = context.assignment;
  const runs = input.kind === "map" ? await runsOf(context, input.split) : [[]];
  const inputs: string[] = [];
  const result: Replayed = { failure: undefined, culprit: undefined, inputs };
  for (const [index, split] of runs.entries()) {
    const path = join(replay.folder, index === 0 ? "input" : `input.${index + 1}`);
    inputs.push(path);
    const file = await open(path, "wx+", 0o600);
    try {
      await spool(context, split, file);
      if (isBuiltin(job.command)) continue;
      result.failure = await runOn(context, replay, split[0], file);
      await writeRunScript(context, split[0], path, replay.folder);
      if (result.failure === undefined) continue;
      result.culprit = await findCulprit(context, replay, split, file);
      return result;
    } finally {
      await file.close();
    }
  }
  if (isBuiltin(job.command) || combinerOfTask(context) !== undefined)
    result.failure = await wholeTask(context);
  return result;
}

async function contextIn(replay: ReplayOptions): Promise<TaskContext> {
  const { assignment, store, signal, folder, say } = replay;
  const log = new StderrLog(undefined, say);
  const options = { ...replay.options, scratch: join(folder, ".own"), layouts: undefined };
  const scratch = new Scratch(options.scratch, store, options.code.runner, options.files);
  const input = new SplitInput(store, assignment);
  input.follow(signal);
  return openContext({
    assignment,
    store,
    options,
    scratch,
    folder: scratch.openFolder("run"),
    signal,
    progress: newProgress(),
    log,
    input,
    memory: UNCOUNTED,
  });
}

/** Writes what the script reads into the file. */
async function spool(context: TaskContext, split: Split, file: FileHandle): Promise<void> {
  const { input } = context.assignment;
  const write = (chunk: Uint8Array) => writeFully(file, chunk);
  if (input.kind === "map") {
    for await (const chunk of recordsOfSplit(context, split)) await write(chunk);
    return;
  }
  const pairs = pairsOfReduce(context, input);
  await pairs.give(OUTPUT.lines, write);
}

/** @returns why the script fails on the whole input, if it does. */
async function runOn(
  context: TaskContext,
  { folder }: ReplayOptions,
  range: InputRange | undefined,
  file: FileHandle,
): Promise<string | undefined> {
  const output = await open(join(folder, "output"), "a", 0o600);
  try {
    const { size } = await file.stat();
    return await runPrefix(context, range, file, size, context.log, (chunk) =>
      writeFully(output, chunk),
    );
  } finally {
    await output.close();
  }
}

async function runPrefix(
  context: TaskContext,
  range: InputRange | undefined,
  file: FileHandle,
  end: number,
  log: StderrLog,
  onOutput: (chunk: Buffer) => Promise<void>,
): Promise<string | undefined> {
  try {
    await runScript(context, {
      role: context.assignment.input.kind,
      range,
      log,
      feed: async (script) => {
        for await (const chunk of bytesOf(file, 0, end)) if (!(await script.write(chunk))) return;
      },
      onOutput,
    });
    return undefined;
  } catch (error) {
    context.signal.throwIfAborted();
    if (!MrError.is(error, "user")) throw error;
    return messageOf(error);
  }
}

/** Everything that the script itself does not do: sort, combine, reduce by a built-in. */
async function wholeTask(context: TaskContext): Promise<string | undefined> {
  try {
    await (context.assignment.input.kind === "map" ? runMapTask : runReduceTask)(context);
    return undefined;
  } catch (error) {
    context.signal.throwIfAborted();
    if (!MrError.is(error, "user")) throw error;
    return messageOf(error);
  }
}

/** The shortest failing beginning is found by halving: about 20 runs for a million records. */
async function findCulprit(
  context: TaskContext,
  { say }: ReplayOptions,
  split: Split,
  file: FileHandle,
): Promise<Culprit> {
  const ends = await recordEnds(file);
  const endOf = (records: number) => (records === 0 ? 0 : (ends[records - 1] ?? 0));
  const fails = async (records: number) => {
    const quiet = new StderrLog();
    const range = split[0];
    return runPrefix(context, range, file, endOf(records), quiet, async () => undefined);
  };
  say(`looking for the record among ${ends.length} ...\n`);
  let [passes, failing] = [-1, ends.length];
  while (failing - passes > 1) {
    const middle = Math.floor((passes + failing) / 2);
    if ((await fails(middle)) === undefined) passes = middle;
    else failing = middle;
  }
  const start = endOf(failing - 1);
  const size = Math.min(endOf(failing) - start, LINE_BYTES_SHOWN);
  const line = failing === 0 ? Buffer.alloc(0) : await readBytes(file, start, size);
  const place = failing === 0 ? undefined : await placeOf(context, split, failing);
  return { record: failing, line, place };
}

const LINE_BYTES_SHOWN = 4096;
const READ_BYTES = 256 * 1024;
const LF = 10;

/** Where each record of a file ends. */
async function recordEnds(file: FileHandle): Promise<number[]> {
  const ends: number[] = [];
  let at = 0;
  const { size } = await file.stat();
  for await (const chunk of bytesOf(file, 0, size)) {
    for (let lf = chunk.indexOf(LF); lf >= 0; lf = chunk.indexOf(LF, lf + 1))
      ends.push(at + lf + 1);
    at += chunk.length;
  }
  return ends;
}

/** Which blob the n-th record of a split (from 1) comes from, and where it begins there. */
async function placeOf(context: TaskContext, split: Split, record: number) {
  let left = record;
  for (const range of split) {
    const offset = await offsetOf(context, range, left);
    if (offset.kind === "found")
      return { blob: `${range.container}/${range.name}`, offset: offset.offset };
    left -= offset.records;
  }
  return undefined;
}

async function offsetOf(context: TaskContext, range: InputRange, record: number) {
  let rest = "";
  let records = 0;
  const numbered = recordsOf(context, range, { separator: "|", withOffset: true });
  for await (const chunk of numbered) {
    const lines = (rest + Buffer.from(chunk).toString("latin1")).split("\n");
    rest = lines.pop() ?? "";
    if (records + lines.length >= record) {
      const line = lines[record - records - 1] ?? "";
      return { kind: "found" as const, offset: Number.parseInt(line, 10) };
    }
    records += lines.length;
  }
  return { kind: "beyond" as const, records };
}

async function* bytesOf(file: FileHandle, start: number, end: number): AsyncIterable<Buffer> {
  for (let at = start; at < end; at += READ_BYTES)
    yield await readBytes(file, at, Math.min(READ_BYTES, end - at));
}

async function readBytes(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, at);
  return buffer.subarray(0, bytesRead);
}

async function writeRunScript(
  context: TaskContext,
  range: InputRange | undefined,
  input: string,
  folder: string,
): Promise<void> {
  const line = await context.scripts.commandLine(range, context.signal);
  if (line === undefined) return;
  const env = Object.entries(line.env).map(([name, value]) => quoted(`${name}=${value}`));
  const words = [...env, ...line.argv.map(quoted)].join(" \\\n  ");
  const text = `#!/bin/sh\n# The same run by hand.\ncd ${quoted(context.folder.work)} || exit 1\nexec env -i ${words} < ${quoted(input)}\n`;
  await writeFile(join(folder, "run.sh"), text, { mode: 0o755 });
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
