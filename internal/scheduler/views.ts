import { parseAttemptId, taskId } from "../model/ids.ts";
import {
  isFinal,
  type JobError,
  type JobView,
  type PhaseProgress,
  type StepView,
  type TaskView,
  type WorkerView,
} from "../model/job.ts";
import { LIMIT } from "../model/limits.ts";
import type { ReportRecord } from "../model/records.ts";
import { addCounter, sharesOf } from "../model/task.ts";
import {
  type Attempt,
  type Job,
  outputOf,
  type Phase,
  type State,
  stateOf,
  type Task,
  type Worker,
} from "./state.ts";
import { stepsOf, withSteps } from "./steps.ts";

const NO_PROGRESS: PhaseProgress = {
  done: 0,
  total: 0,
  running: 0,
  bytesDone: 0,
  bytesTotal: 0,
  records: 0,
};

export function viewJob(state: State, job: Job): JobView {
  const { record, stage } = job;
  const steps = stepsOf(state, job).map((step): StepView => {
    const { id, state: stepState, map, reduce, error } = viewJob(state, step);
    return { id, step: step.record.pipeline?.step ?? 0, state: stepState, map, reduce, error };
  });
  const { id, owner, spec, submittedAtMs } = record;
  const common = { id, owner, spec, submittedAtMs, steps };
  if (stage.kind === "ended") {
    const { record: _record, ...report } = stage.report;
    return { ...common, ...report, error: report.error, lastError: undefined };
  }
  const current = steps.at(-1);
  return {
    ...common,
    lastError: withSteps(state, job).findLast(({ lastError }) => lastError !== undefined)
      ?.lastError,
    ...figuresOf(state, job),
    // Between two steps none is running; the next one begins at once.
    state:
      current === undefined ? stateOf(job) : isFinal(current.state) ? "planning" : current.state,
    finishedAtMs: 0,
    counters: liveCounters(state, job),
    output: outputOf(record),
    error: undefined,
  };
}

/** Of a pipeline: how far its last step is, and what all of them have counted. */
function figuresOf(state: State, job: Job) {
  const steps = stepsOf(state, job);
  const last = steps.at(-1) ?? job;
  const { map, shuffle, reduce } =
    last.stage.kind === "ended" ? last.stage.report : liveProgress(state, last);
  const figures = { map, shuffle, reduce, attemptsFailed: 0, attemptsLost: 0, badRecords: 0 };
  for (const one of withSteps(state, job)) {
    const { attemptsFailed, attemptsLost, badRecords } =
      one.stage.kind === "ended" ? one.stage.report : one;
    figures.attemptsFailed += attemptsFailed;
    figures.attemptsLost += attemptsLost;
    figures.badRecords += badRecords;
  }
  return { ...figures, startedAtMs: startOf(steps[0] ?? job) };
}

function startOf({ stage, startedAtMs }: Job): number {
  return stage.kind === "ended" ? stage.report.startedAtMs : startedAtMs;
}

/** Those of done tasks, and what running attempts have counted so far. */
function liveCounters(state: State, job: Job): Record<string, number> {
  const sums = countersOf(state, job);
  for (const one of withSteps(state, job)) addLive(state, one, sums);
  return Object.fromEntries(sums);
}

/** What done tasks have counted; of a pipeline, those of all its steps. */
function countersOf(state: State, job: Job): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { counters, stage } of withSteps(state, job)) {
    const ended = stage.kind === "ended" ? Object.entries(stage.report.counters) : undefined;
    for (const [name, value] of ended ?? counters) addTo(sums, name, value);
  }
  return sums;
}

function addTo(sums: Map<string, number>, name: string, value: number): void {
  if (sums.has(name) || sums.size < LIMIT.countersPerJob)
    sums.set(name, addCounter(sums.get(name), value));
}

function addLive(state: State, job: Job, sums: Map<string, number>): void {
  for (const phase of [job.map, job.reduce]) {
    if (phase.done === phase.tasks.length) continue;
    for (const task of phase.tasks) {
      if (task.state.kind !== "running") continue;
      for (const [name, value] of Object.entries(foremost(state, task)?.counters ?? {}))
        addTo(sums, name, value);
    }
  }
}

/** Of the attempts of a task, the one that has read most. */
function foremost(state: State, task: Task): Attempt | undefined {
  let best: Attempt | undefined;
  for (const id of task.attempts) {
    const attempt = state.attempts.get(id);
    if (attempt !== undefined && attempt.bytesIn >= (best?.bytesIn ?? 0)) best = attempt;
  }
  return best;
}

type Progress = Pick<JobView, "map" | "shuffle" | "reduce">;

function liveProgress(state: State, job: Job): Progress {
  const map = phaseProgress(state, job.map);
  map.bytesTotal = job.splitBytes || job.map.bytesIn;
  const reduce = phaseProgress(state, job.reduce);
  reduce.bytesTotal = job.reduce.tasks.length > 0 ? job.map.outputBytes : 0;
  if (map.total === 0) map.total = job.record.spec.phase === "reduce" ? 0 : job.record.spec.m_num;
  if (reduce.total === 0 && job.record.spec.phase !== "map") reduce.total = job.record.spec.r_num;
  if (job.record.spec.phase === "map") reduce.total = 0;
  // Reducers merge while they fetch: what they have read is what was shuffled.
  const shuffle = { ...NO_PROGRESS, bytesDone: reduce.bytesDone, bytesTotal: reduce.bytesTotal };
  return { map, shuffle, reduce };
}

function phaseProgress(state: State, phase: Phase): PhaseProgress {
  const progress = {
    ...NO_PROGRESS,
    done: phase.done,
    total: phase.tasks.length,
    bytesDone: phase.bytesIn,
    records: phase.recordsIn,
  };
  if (phase.done === phase.tasks.length) return progress;
  for (const task of phase.tasks) {
    if (task.state.kind !== "running") continue;
    progress.running += 1;
    progress.bytesDone += foremost(state, task)?.bytesIn ?? 0;
  }
  return progress;
}

export function reportOf(
  state: State,
  job: Job,
  end: ReportRecord["state"],
  error: JobError | undefined,
  wallMs: number,
): ReportRecord {
  const { map, shuffle, reduce, ...figures } = figuresOf(state, job);
  return {
    record: job.record,
    state: end,
    map: { ...map, running: 0 },
    shuffle,
    reduce: { ...reduce, running: 0 },
    ...figures,
    finishedAtMs: wallMs,
    counters: Object.fromEntries(countersOf(state, job)),
    output: outputOf(job.record),
    error,
  };
}

export function viewTasks(state: State, job: Job): TaskView[] {
  const isEnded = job.stage.kind === "ended";
  return [...job.map.tasks, ...job.reduce.tasks].map((task) => {
    const attempts = [...task.attempts].flatMap((id) => {
      const attempt = state.attempts.get(id);
      if (attempt === undefined) return [];
      return {
        id: parseAttemptId(id)?.attempt ?? id,
        worker: attempt.worker,
        state: attempt.revoked ? "revoked" : "running",
        bytesIn: attempt.bytesIn,
        bytesTotal: attempt.bytesTotal,
        status: attempt.status,
      };
    });
    if (task.state.kind === "done") {
      const { attempt, worker, stats } = task.state.done;
      attempts.unshift({
        id: parseAttemptId(attempt)?.attempt ?? attempt,
        worker,
        state: "won",
        bytesIn: stats.bytesIn,
        bytesTotal: stats.bytesIn,
        status: "",
      });
    }
    return {
      id: taskId(task.kind, task.index),
      state: isEnded && task.state.kind !== "done" ? "stopped" : task.state.kind,
      failures: task.userFailures + task.infraFailures,
      lastError: task.lastError.slice(0, LIMIT.listedChars),
      attempts,
    };
  });
}

export function workerState(worker: Worker, atMs: number): WorkerView["state"] {
  if (worker.session === undefined) return "away";
  return atMs < worker.probationUntilMs ? "probation" : "connected";
}

export function viewWorker(worker: Worker, atMs: number): WorkerView {
  const state = workerState(worker, atMs);
  const { slots, reducesPerSlot } = worker.info;
  let shares = slots * reducesPerSlot;
  for (const attempt of worker.attempts)
    shares -= sharesOf(parseAttemptId(attempt)?.kind ?? "map", worker.info);
  return {
    ...worker.info,
    // Some attempts may wait there for a slot.
    free: state === "away" ? 0 : Math.max(0, Math.floor(shares / reducesPerSlot)),
    attempts: [...worker.attempts],
    state,
  };
}
