import { type FileHandle, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { MrError, messageOf } from "../model/errors.ts";
import { parseAttemptId } from "../model/ids.ts";
import { joinName, locationOf } from "../model/names.ts";
import type { BadRecords, InputRange } from "../model/task.ts";
import { countLines } from "../shuffle/lines.ts";
import { writeFully } from "../shuffle/spill.ts";
import { StderrLog } from "../streaming/stderr.ts";
import type { Printed } from "./part_writer.ts";
import { committed, runScript, type TaskContext } from "./task_context.ts";

const LF = 10;
const READ_BYTES = 256 * 1024;
/** What is looked at in one step when the end of a record is sought, in bytes. */
const SEEK_BYTES = 64 * 1024;

/** Bytes [start, end) of the spooled input; both are borders of records. */
interface Piece {
  start: number;
  end: number;
}

/**
 * Finds the records on which a mapper fails, by bisection: it runs on the whole
 * split, on halves of what it failed on, and so on, until the records at fault
 * stand alone. Output counts only of pieces on which it succeeds, in the order of
 * the input.
 *
 * @param records the split's records, each ended by one LF.
 * @returns what was set aside, staged.
 * @throws MrError `user` when that is more than the job allows.
 */
export async function runNarrowed(
  context: TaskContext,
  range: InputRange | undefined,
  records: AsyncIterable<Uint8Array>,
  printed: Printed,
): Promise<BadRecords | undefined> {
  const { progress, folder, assignment, log } = context;
  await mkdir(folder.spill, { recursive: true });
  const input = await open(join(folder.spill, "records"), "wx+", 0o600);
  const output = await open(join(folder.spill, "printed"), "wx+", 0o600);
  try {
    const size = await spool(context, records, input);
    progress.bytesTotal = size;
    const bad: Piece[] = [];
    const todo: Piece[] = [{ start: 0, end: size }];
    for (let piece = todo.pop(); piece !== undefined; piece = todo.pop()) {
      const failure = await tryPiece(context, range, piece, input, output);
      if (failure === undefined) await passOn(output, printed);
      else {
        const middle = await borderNear(input, piece);
        if (middle !== undefined) {
          todo.push({ start: middle, end: piece.end }, { start: piece.start, end: middle });
          continue;
        }
        if (piece.end === piece.start) throw failure; // It fails on nothing at all.
        // Once more: it may have been an accident, and the record would be lost.
        if ((await tryPiece(context, range, piece, input, output)) === undefined) {
          await passOn(output, printed);
          continue;
        }
        bad.push(piece);
        log.note(`set aside a record of ${piece.end - piece.start} bytes: ${messageOf(failure)}`);
        if (bad.length > assignment.job.badRecordsMax)
          throw new MrError(
            "user",
            `${messageOf(failure)}; it fails on more records than max_bad_records (${assignment.job.badRecordsMax}) allows`,
          );
      }
      progress.bytesIn = piece.end;
    }
    return bad.length === 0 ? undefined : await stageBad(context, bad, input);
  } finally {
    await input.close();
    await output.close();
  }
}

async function spool(
  context: TaskContext,
  records: AsyncIterable<Uint8Array>,
  file: FileHandle,
): Promise<number> {
  let size = 0;
  for await (const chunk of records) {
    context.signal.throwIfAborted();
    context.stats.recordsIn += countLines(chunk);
    await file.writeFile(chunk);
    size += chunk.length;
  }
  context.stats.bytesIn = size;
  return size;
}

/** Runs the mapper on a piece, its output into the file. @returns why it failed, if it did. */
async function tryPiece(
  context: TaskContext,
  range: InputRange | undefined,
  piece: Piece,
  input: FileHandle,
  output: FileHandle,
): Promise<MrError | undefined> {
  const log = new StderrLog();
  await output.truncate(0);
  let printed = 0;
  try {
    await runScript(context, {
      role: "map",
      range,
      log,
      feed: async (script) => {
        for await (const chunk of readPiece(input, piece)) if (!(await script.write(chunk))) return;
      },
      onOutput: async (chunk) => {
        await writeFully(output, chunk, printed);
        printed += chunk.length;
      },
    });
    context.log.merge(log);
    return undefined;
  } catch (error) {
    context.signal.throwIfAborted();
    if (!MrError.is(error, "user")) throw error;
    const whole = piece.start === 0 && piece.end === context.stats.bytesIn;
    if (whole) context.log.note(`the mapper fails on the whole split:\n${log.tail()}`);
    return error as MrError;
  }
}

/** Each piece's output ends its last line: the next one begins a new one. */
async function passOn(output: FileHandle, printed: Printed): Promise<void> {
  const { size } = await output.stat();
  for await (const chunk of readPiece(output, { start: 0, end: size })) await printed.push(chunk);
  await printed.endLine();
}

/** A loop, not a stream: that would close the file when its reader stops early. */
async function* readPiece(file: FileHandle, { start, end }: Piece): AsyncIterable<Buffer> {
  for (let at = start; at < end; ) {
    const length = Math.min(READ_BYTES, end - at);
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, at);
    if (bytesRead === 0) throw new MrError("corrupt", "the spooled input is not whole");
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
  }
}

/** A border of two records inside the piece, as near behind its middle as there is one; else before. */
async function borderNear(file: FileHandle, { start, end }: Piece): Promise<number | undefined> {
  const middle = Math.floor((start + end) / 2);
  const behind = await nextBorder(file, middle, end);
  if (behind < end) return behind;
  // The record across the middle is the last one: it stands alone against all before it.
  for (let to = middle; to > start; to -= SEEK_BYTES) {
    const from = Math.max(start, to - SEEK_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(to - from), 0, to - from, from);
    const at = buffer.subarray(0, bytesRead).lastIndexOf(LF);
    if (at >= 0 && from + at + 1 > start) return from + at + 1;
  }
  return undefined;
}

async function nextBorder(file: FileHandle, from: number, end: number): Promise<number> {
  for (let at = from; at < end; at += SEEK_BYTES) {
    const length = Math.min(SEEK_BYTES, end - at);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, at);
    const found = buffer.subarray(0, bytesRead).indexOf(LF);
    if (found >= 0) return at + found + 1;
  }
  return end;
}

async function stageBad(
  context: TaskContext,
  bad: Piece[],
  input: FileHandle,
): Promise<BadRecords> {
  const { store, assignment } = context;
  const place = locationOf(assignment.job.badOutput);
  const task = parseAttemptId(assignment.attempt)?.task ?? "";
  const name = joinName(place.prefix, task);
  const staged = await store.stage(place.container, name, assignment.attempt, context.signal);
  return committed(staged, async () => {
    for (const piece of bad)
      for await (const chunk of readPiece(input, piece)) await staged.write(chunk);
    return { records: bad.length, receipt: await staged.seal() };
  });
}
