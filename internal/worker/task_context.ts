import { parseAttemptId, partName } from "../model/ids.ts";
import type { FailureClass } from "../model/job.ts";
import { joinName, locationOf } from "../model/names.ts";
import type { ObjectStore, StagedObject } from "../model/object_store.ts";
import type { Assignment, TaskOutput, TaskStats } from "../model/task.ts";
import { countLines, LineNormalizer } from "../shuffle/lines.ts";
import type { ScriptEnd, ScriptProcess } from "../streaming/script_process.ts";
import type { AttemptFolder } from "./attempt_files.ts";

export interface TaskRunnerOptions {
  scratch: string;
  sortBytes: number;
  lineBytesMax: number;
}

export interface Progress {
  bytesIn: number;
  bytesTotal: number;
  status: string;
}

export type TaskResult =
  | { kind: "completed"; output: TaskOutput; stats: TaskStats }
  | { kind: "failed"; class: FailureClass; message: string; logTail: string };

/** What a map or reduce task is run with. */
export interface TaskContext {
  assignment: Assignment;
  store: ObjectStore;
  options: TaskRunnerOptions;
  folder: AttemptFolder;
  signal: AbortSignal;
  stats: TaskStats;
  /** Changed in place; sampled by the heartbeat. */
  progress: Progress;
  startScript(onOutput: (chunk: Buffer) => Promise<void>): Promise<ScriptProcess>;
  /** Throws unless the script ended as its job expects. */
  checkEnd(end: ScriptEnd, inputUnread: boolean): void;
}

/** Stages the part of the result that this task makes. */
export async function stagePart(context: TaskContext): Promise<StagedObject> {
  const { assignment, store } = context;
  const place = locationOf(assignment.job.output);
  const index = parseAttemptId(assignment.attempt)?.index ?? 0;
  return store.stage(place.container, joinName(place.prefix, partName(index)), assignment.attempt);
}

/** Writes a script's lines as it printed them, each ended by one LF. */
export function partWriter(context: TaskContext, staged: StagedObject) {
  const lines = new LineNormalizer();
  const push = async (chunk: Uint8Array) => {
    const normal = lines.push(chunk);
    context.stats.recordsOut += countLines(normal);
    context.stats.bytesOut += normal.length;
    await staged.write(normal);
  };
  return { push, end: () => staged.write(lines.end()) };
}

/** Keeps what was staged only if all went well. */
export async function committed<T>(staged: StagedObject, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    await staged.discard().catch(() => undefined);
    throw error;
  }
}
