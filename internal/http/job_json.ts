import {
  isFinal,
  type JobError,
  type JobView,
  type PhaseProgress,
  type TaskView,
  type WorkerView,
} from "../model/job.ts";
import type { Assignment } from "../model/task.ts";

/** Jobs, tasks and workers as clients see them: snake_case, times in ISO 8601. */
export function jobJson(job: JobView): Record<string, unknown> {
  const { spec } = job;
  return {
    id: job.id,
    state: job.state,
    name: spec.name,
    ...(spec.steps.length === 0 && { mapper: spec.mapper, reducer: spec.reducer }),
    ...(spec.combiner !== "" && { combiner: spec.combiner }),
    ...(spec.partitioner !== "" && { partitioner: spec.partitioner }),
    data: spec.data.length === 1 ? spec.data[0] : spec.data,
    m_num: spec.m_num,
    r_num: spec.r_num,
    ...(spec.phase !== "" && { phase: spec.phase }),
    ...(spec.from !== "" && { from: spec.from }),
    priority: spec.priority,
    map: phaseJson(job.map),
    shuffle: { bytes_done: job.shuffle.bytesDone, bytes_total: job.shuffle.bytesTotal },
    reduce: phaseJson(job.reduce),
    counters: job.counters,
    attempts: { failed: job.attemptsFailed, lost: job.attemptsLost },
    bad_records: job.badRecords,
    output: job.output,
    submitted_at: time(job.submittedAtMs),
    started_at: time(job.startedAtMs),
    finished_at: time(job.finishedAtMs),
    ...(spec.steps.length > 0 && { steps: spec.steps.map((_, index) => stepJson(job, index)) }),
    ...(job.error !== undefined && { error: errorJson(job.error) }),
    ...(job.lastError !== undefined && { last_error: errorJson(job.lastError) }),
  };
}

function errorJson(error: JobError) {
  const { class: why, message, task, attempt, logTail } = error;
  return { class: why, message, task, attempt, log_tail: logTail };
}

/** Every step of the request; one that was not begun is `waiting`, or `reused` from the job before. */
function stepJson({ spec, steps, state }: JobView, index: number) {
  const { mapper, reducer } = spec.steps[index] ?? spec;
  const begun = steps.find(({ step }) => step === index);
  if (begun === undefined) {
    const isReused = steps.some(({ step }) => step > index);
    return { state: isReused ? "reused" : isFinal(state) ? "not run" : "waiting", mapper, reducer };
  }
  const { id, map, reduce, error } = begun;
  return {
    id,
    state: begun.state,
    mapper,
    reducer,
    map: phaseJson(map),
    reduce: phaseJson(reduce),
    ...(error !== undefined && { error: errorJson(error) }),
  };
}

function phaseJson(phase: PhaseProgress) {
  return {
    done: phase.done,
    total: phase.total,
    running: phase.running,
    bytes_done: phase.bytesDone,
    bytes_total: phase.bytesTotal,
    records: phase.records,
  };
}

function time(ms: number): string | null {
  return ms === 0 ? null : new Date(ms).toISOString();
}

export function taskJson(task: TaskView) {
  return {
    id: task.id,
    state: task.state,
    failures: task.failures,
    last_error: task.lastError,
    attempts: task.attempts.map((attempt) => ({
      id: attempt.id,
      worker: attempt.worker,
      state: attempt.state,
      bytes_in: attempt.bytesIn,
      bytes_total: attempt.bytesTotal,
      status: attempt.status,
    })),
  };
}

export function workerJson(worker: WorkerView) {
  return { ...worker };
}

/** Bytes as base64. */
export function assignmentJson({ attempt, job, input }: Assignment) {
  if (input.kind === "map" || input.keys === undefined) return { attempt, job, input };
  const { from, to } = input.keys;
  const keys = { from: from?.toString("base64"), to: to?.toString("base64") };
  return { attempt, job, input: { ...input, keys } };
}
