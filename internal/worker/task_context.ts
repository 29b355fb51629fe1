import { type Contract, contractOf, extensionOf, type PairFormat } from "../model/contract.ts";
import { MrError } from "../model/errors.ts";
import { type AttemptId, parseAttemptId, partName, type TaskKind } from "../model/ids.ts";
import type { FailureClass } from "../model/job.ts";
import { joinName, locationOf } from "../model/names.ts";
import type { ObjectStore, StagedObject } from "../model/object_store.ts";
import {
  type Assignment,
  type BadRecords,
  type InputRange,
  newStats,
  type Progress,
  type TaskOutput,
  type TaskStats,
} from "../model/task.ts";
import { OUTPUT } from "../shuffle/kernel/functions.ts";
import { type LineOrder, lineOrder } from "../shuffle/key_order.ts";
import type { LargeShare } from "../shuffle/large_memory.ts";
import type { SortedPairs } from "../shuffle/sorted_pairs.ts";
import { SpillFolder } from "../shuffle/spill.ts";
import type { Script, ScriptEnd } from "../streaming/script.ts";
import type { ScriptLimits } from "../streaming/script_process.ts";
import type { StderrLog } from "../streaming/stderr.ts";
import type { AttemptFolder, Scratch } from "./attempt_files.ts";
import { AttemptScripts, type CodeSettings, type ScriptRole } from "./attempt_scripts.ts";
import type { EarlyReduces } from "./early_reduces.ts";
import type { FileLimits } from "./script_cache.ts";
import type { SplitInput } from "./split_input.ts";

export interface TaskRunnerOptions {
  scratch: string;
  /** Where the runner can read it; undefined: in the scratch folder. */
  layouts: string | undefined;
  /** Of what a job ships. */
  files: FileLimits;
  sortBytes: number;
  /** A longer line of a script is refused, in bytes. */
  lineBytesMax: number;
  /** What a slot has to merge long lines with, in bytes. */
  mergeBytes: number;
  /** Several reduce tasks share what one map task may take. */
  limits: Record<TaskKind, ScriptLimits>;
  code: CodeSettings;
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
  contract: Contract;
  order: LineOrder;
  spill: SpillFolder;
  scripts: AttemptScripts;
  /** What a map task reads. */
  input: SplitInput;
  /** What was prepared for reduce tasks, if anything can have been. */
  early?: EarlyReduces;
}

export type ContextGiven = Pick<
  TaskContext,
  "assignment" | "store" | "options" | "folder" | "signal" | "progress" | "log" | "input"
> & { scratch: Scratch; early?: EarlyReduces; memory: LargeShare };

export function openContext({ scratch, memory, ...given }: ContextGiven): TaskContext {
  const { assignment, options, folder } = given;
  const { conf, partitioner, outputFormat, sortValues } = assignment.job;
  const contract = contractOf({ conf, partitioner, output_format: outputFormat });
  return {
    ...given,
    stats: newStats(),
    contract,
    order: lineOrder(contract, sortValues),
    spill: new SpillFolder(folder.spill, "", memory),
    scripts: new AttemptScripts(assignment, contract, options.code, folder, scratch),
  };
}

/** What a task has made. */
export interface TaskMade {
  output: TaskOutput;
  bad?: BadRecords | undefined;
}

export interface ScriptRun {
  role: ScriptRole;
  /** What a mapper reads, for its environment. */
  range?: InputRange | undefined;
  /** Of this run; default the attempt's. */
  log?: StderrLog;
  feed: (script: Script) => Promise<void>;
  onOutput: (chunk: Buffer) => Promise<void>;
}

/**
 * Runs a script: its input is fed while its output is taken, both at the same time.
 * @throws MrError `user` unless it ended as its job expects.
 */
export async function runScript(context: TaskContext, run: ScriptRun): Promise<void> {
  const { signal, contract, options } = context;
  const { role, range, log = context.log } = run;
  const script = await context.scripts.start({
    role,
    range,
    log,
    signal,
    silenceMs: contract.silenceMs,
    limits: options.limits[context.assignment.input.kind],
    onOutput: run.onOutput,
  });
  const feeding = run.feed(script).then(
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
  signal.throwIfAborted();
  checkEnd(role, end, script.inputUnread, contract);
}

function checkEnd(
  role: ScriptRole,
  { over, signal, code }: ScriptEnd,
  inputUnread: boolean,
  contract: Contract,
): void {
  const who = role === "combine" ? "the combiner" : "the script";
  if (over !== undefined) throw new MrError("user", `${who} was killed: ${over}`);
  if (signal !== null) throw new MrError("user", `${who} was killed by ${signal}`);
  if (code !== 0 && contract.nonZeroExitFails)
    throw new MrError("user", `${who} exited with ${code}`);
  if (inputUnread && contract.unreadInputFails)
    throw new MrError("user", `${who} ended before it had read all its input`);
}

/** How what a script prints is cut into pairs, each kept as the line that a reducer will read. */
export function pairsOf({ contract, options, order }: TaskContext, format: PairFormat) {
  const { separator } = contract.reduceInput;
  return { format, separator, lineBytesMax: options.lineBytesMax, order };
}

class InputClosed extends Error {}

/** Feeds sorted pairs to a script, each as the line that a reducer reads. @returns how many. */
export async function feedPairs(
  context: TaskContext,
  pairs: SortedPairs,
  script: Script,
): Promise<number> {
  let records = 0;
  try {
    records = await pairs.give(OUTPUT.lines, async (lines) => {
      context.signal.throwIfAborted();
      if (!(await script.write(lines))) throw new InputClosed();
    });
  } catch (error) {
    // The script reads no more: how it ended decides what that means.
    if (!(error instanceof InputClosed)) throw error;
  }
  return records;
}

/** Stages the part of the result that this task makes. */
export async function stagePart(context: TaskContext): Promise<StagedObject> {
  const { assignment, store } = context;
  const { compression } = context.contract;
  const place = locationOf(assignment.job.output);
  const index = parseAttemptId(assignment.attempt)?.index ?? 0;
  const name = partName(index, extensionOf(compression));
  return store.stage(
    place.container,
    joinName(place.prefix, name),
    assignment.attempt,
    context.signal,
  );
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
