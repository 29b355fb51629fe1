import { MrError, messageOf } from "../model/errors.ts";
import { type AttemptId, parseAttemptId } from "../model/ids.ts";
import type { FailureClass } from "../model/job.ts";
import { CONTAINER } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { type Assignment, attemptLogName, type Progress } from "../model/task.ts";
import { LargeMemory } from "../shuffle/large_memory.ts";
import { StderrLog } from "../streaming/stderr.ts";
import { type AttemptFolder, Scratch } from "./attempt_files.ts";
import { EarlyReduces } from "./early_reduces.ts";
import { runMapTask } from "./map_task.ts";
import { runReduceTask } from "./reduce_task.ts";
import { LostOutput } from "./segment.ts";
import { SplitInput } from "./split_input.ts";
import {
  failedResult,
  openContext,
  type TaskContext,
  type TaskResult,
  type TaskRunnerOptions,
} from "./task_context.ts";

/** Runs attempts: a slot. It lives on a thread of its own. */
export class TaskRunner {
  private readonly store: ObjectStore;
  private readonly options: TaskRunnerOptions;
  private readonly scratch: Scratch;
  private readonly memory: LargeMemory;
  readonly early: EarlyReduces;
  /** Told when an attempt has all its input: what is left to do is little, as a rule. */
  onInputRead: (attempt: AttemptId) => void = () => undefined;
  /** What attempts will read that have the slot next. */
  private readonly expected = new Map<AttemptId, SplitInput>();
  /** Storage requests that attempts have been charged with. */
  private charged = 0;

  constructor(store: ObjectStore, options: TaskRunnerOptions) {
    this.store = store;
    this.options = options;
    const { scratch, code, files, layouts } = options;
    this.scratch = new Scratch(scratch, store, code.runner, files, layouts);
    this.memory = new LargeMemory(options.mergeBytes);
    this.early = new EarlyReduces(store, this.scratch, this.memory);
  }

  /** Asks for the input of an attempt that will be run here, or be unexpected. */
  expect(assignment: Assignment): void {
    const input = this.inputOf(assignment);
    input.begin();
    this.expected.set(assignment.attempt, input);
  }

  unexpect(attempt: AttemptId): void {
    this.expected.get(attempt)?.[Symbol.dispose]();
    this.expected.delete(attempt);
  }

  private inputOf(assignment: Assignment): SplitInput {
    return new SplitInput(this.store, assignment, () => this.onInputRead(assignment.attempt));
  }

  async run(assignment: Assignment, signal: AbortSignal, progress: Progress): Promise<TaskResult> {
    using input = this.expected.get(assignment.attempt) ?? this.inputOf(assignment);
    this.expected.delete(assignment.attempt);
    input.follow(signal);
    input.begin();
    const log = new StderrLog(() => {
      progress.status = log.status;
      progress.counters = log.counters;
    });
    const startMs = performance.now();
    const { store, options, scratch, early } = this;
    let folder: AttemptFolder;
    let context: TaskContext;
    try {
      folder = scratch.openAttempt(assignment.attempt);
      const given = { assignment, store, options, scratch, folder, signal, progress, log };
      context = openContext({ ...given, input, early, memory: this.memory.share(signal) });
    } catch (error) {
      return failedResult(classOf(error, signal), messageOf(error));
    }
    try {
      const run = assignment.input.kind === "map" ? runMapTask : runReduceTask;
      const { output, bad } = await run(context);
      // Of attempts that ran beside this one, too: what counts is what they come to together.
      const requests = (store.requests ?? 0) - this.charged;
      this.charged += requests;
      context.stats.counters = {
        ...context.stats.counters,
        ...log.counters,
        ...(requests > 0 && { [REQUESTS_COUNTER]: requests }),
      };
      context.stats.wallMs = Math.round(performance.now() - startMs);
      return { kind: "completed", output, stats: context.stats, bad };
    } catch (error) {
      log.note(`attempt failed: ${messageOf(error)}`);
      return {
        kind: "failed",
        class: classOf(error, signal),
        message: messageOf(error),
        logTail: log.tail(),
        lostOutputs: error instanceof LostOutput ? error.attempts : [],
      };
    } finally {
      if (!signal.aborted) await this.saveLog(assignment, log, signal);
      context.scripts[Symbol.dispose]();
      void this.removeAttempt(folder, context.scripts.hadScript);
    }
  }

  /** Best effort: what cannot be removed now goes with the worker's folder, or the runner's. */
  private async removeAttempt(folder: AttemptFolder, hadScript: boolean): Promise<void> {
    try {
      await this.scratch.removeAttempt(folder, hadScript);
    } catch {
      // A process that was not killed in time may still write there.
    }
  }

  /** Best effort: a lost log fails nobody. */
  private async saveLog(
    assignment: Assignment,
    log: StderrLog,
    signal: AbortSignal,
  ): Promise<void> {
    const bytes = Buffer.from(log.toString());
    if (bytes.length === 0 || parseAttemptId(assignment.attempt) === undefined) return;
    try {
      const either = AbortSignal.any([signal, AbortSignal.timeout(LOG_MS)]);
      await this.store.create(CONTAINER.logs, attemptLogName(assignment.attempt), bytes, either);
    } catch {
      // The tail is in the failure's message anyway.
    }
  }
}

/** What a job costs at the storage's counter: shown, and added up, with the script's own. */
const REQUESTS_COUNTER = "mr,storage requests";

/** A log is not worth waiting longer for, in milliseconds. */
const LOG_MS = 10_000;

function classOf(error: unknown, signal: AbortSignal): FailureClass {
  if (signal.aborted) return "revoked";
  if (!(error instanceof MrError)) return "infra";
  if (error.code === "user") return "user";
  if (["changed", "not_found", "denied"].includes(error.code)) return "input";
  return "infra";
}
