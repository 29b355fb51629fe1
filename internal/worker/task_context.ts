import { MrError } from "../model/errors.ts";
import { type AttemptId, parseAttemptId, partName } from "../model/ids.ts";
import type { FailureClass } from "../model/job.ts";
import { joinName, locationOf } from "../model/names.ts";
import type { ObjectStore, StagedObject } from "../model/object_store.ts";
import type { Assignment, BadRecords, TaskOutput, TaskStats } from "../model/task.ts";
import { countLines, LineNormalizer } from "../shuffle/lines.ts";
import type { Script, ScriptEnd } from "../streaming/script.ts";
import type { ScriptLimits } from "../streaming/script_process.ts";
import type { StderrLog } from "../streaming/stderr.ts";
import type { AttemptFolder } from "./attempt_files.ts";

export interface TaskRunnerOptions {
  scratch: string;
  sortBytes: number;
  /** A longer line of a script is refused, in bytes. */
  lineBytesMax: number;
  limits: ScriptLimits;
}

export interface Progress {
  bytesIn: number;
  bytesTotal: number;
  status: string;
}

export type TaskResult =
  | { kind: "completed"; output: TaskOutput; stats: TaskStats; bad: BadRecords | undefined }
  | {
      kind: "failed";
      class: FailureClass;
      message: string;
      logTail: string;
      /** Map attempts whose outputs could not be read whole. */
      lostOutputs: AttemptId[];
    };

export function failedResult(why: FailureClass, message: string): TaskResult {
  return { kind: "failed", class: why, message, logTail: "", lostOutputs: [] };
}

/** Map outputs are gone, or not what they were. */
export class LostOutput extends MrError {
  readonly attempts: AttemptId[];

  constructor(attempts: AttemptId[], message: string, cause: unknown) {
    super("corrupt", message, { cause });
    this.attempts = attempts;
  }
}

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
  log: StderrLog;
  /** @param log of this run; default the attempt's. */
  startScript(onOutput: (chunk: Buffer) => Promise<void>, log?: StderrLog): Promise<Script>;
  /** Throws unless the script ended as its job expects. */
  checkEnd(end: ScriptEnd, inputUnread: boolean): void;
}

/** What a task has made. */
export interface TaskMade {
  output: TaskOutput;
  bad?: BadRecords | undefined;
}

/** Runs the script: its input is fed while its output is taken, both at the same time. */
export async function runScript(
  context: TaskContext,
  feed: (script: Script) => Promise<void>,
  onOutput: (chunk: Buffer) => Promise<void>,
  log?: StderrLog,
): Promise<void> {
  const script = await context.startScript(onOutput, log);
  const feeding = feed(script).then(
    () => script.endInput(),
    (error) => {
      // What it was given is not whole: whatever it makes of it counts for nothing.
      script.kill();
      throw error;
    },
  );
  feeding.catch(() => undefined);
  const end = await script.ended;
  await feeding;
  context.signal.throwIfAborted();
  context.checkEnd(end, script.inputUnread);
}

/** Stages the part of the result that this task makes. */
export async function stagePart(context: TaskContext): Promise<StagedObject> {
  const { assignment, store } = context;
  const place = locationOf(assignment.job.output);
  const index = parseAttemptId(assignment.attempt)?.index ?? 0;
  return store.stage(
    place.container,
    joinName(place.prefix, partName(index)),
    assignment.attempt,
    context.signal,
  );
}

/** Writes a script's lines as it printed them, each ended by one LF. */
export function partWriter(context: TaskContext, staged: StagedObject) {
  const lines = new LineNormalizer();
  const length = new LineLength(context.options.lineBytesMax);
  const push = async (chunk: Uint8Array) => {
    const normal = lines.push(chunk);
    length.check(normal);
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

/** Refuses lines that are too long, before they do harm further on. */
class LineLength {
  private readonly max: number;
  private open = 0;

  constructor(max: number) {
    this.max = max;
  }

  check(chunk: Uint8Array): void {
    const lf = chunk.lastIndexOf(10);
    this.open = lf < 0 ? this.open + chunk.length : chunk.length - lf - 1;
    if (this.open > this.max)
      throw new MrError("user", `the script printed a line of more than ${this.max} bytes`);
  }
}
