import { parseAttemptId, taskId } from "../model/ids.ts";
import type { JobError, JobView, PhaseProgress, TaskView, WorkerView } from "../model/job.ts";
import type { ReportRecord } from "../model/records.ts";
import { type Job, outputOf, type Phase, type State, stateOf, type Worker } from "./state.ts";

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
  const common = { id: record.id, spec: record.spec, submittedAtMs: record.submittedAtMs };
  if (stage.kind === "ended") {
    const { record: _record, ...report } = stage.report;
    return { ...common, ...report, error: report.error };
  }
  const live = liveProgress(state, job);
  return {
    ...common,
    state: stateOf(job),
    ...live,
    startedAtMs: job.startedAtMs,
    finishedAtMs: 0,
    counters: Object.fromEntries(job.counters),
    output: outputOf(record),
    error: undefined,
    attemptsFailed: job.attemptsFailed,
    attemptsLost: job.attemptsLost,
    badRecords: job.badRecords,
  };
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
    let best = 0;
    for (const id of task.attempts) best = Math.max(best, state.attempts.get(id)?.bytesIn ?? 0);
    progress.bytesDone += best;
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
  const { map, shuffle, reduce } = liveProgress(state, job);
  return {
    record: job.record,
    state: end,
    map: { ...map, running: 0 },
    shuffle,
    reduce: { ...reduce, running: 0 },
    startedAtMs: job.startedAtMs,
    finishedAtMs: wallMs,
    counters: Object.fromEntries(job.counters),
    output: outputOf(job.record),
    error,
    attemptsFailed: job.attemptsFailed,
    attemptsLost: job.attemptsLost,
    badRecords: job.badRecords,
  };
}

export function viewTasks(state: State, job: Job): TaskView[] {
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
      state: task.state.kind,
      failures: task.userFailures + task.infraFailures,
      lastError: task.lastError,
      attempts,
    };
  });
}

export function viewWorker(worker: Worker, atMs: number): WorkerView {
  const away = worker.session === undefined;
  return {
    ...worker.info,
    free: away ? 0 : worker.info.slots - worker.attempts.size,
    attempts: [...worker.attempts],
    state: away ? "away" : atMs < worker.probationUntilMs ? "probation" : "connected",
  };
}
