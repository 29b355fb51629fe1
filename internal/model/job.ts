import type { JobId } from "./ids.ts";
import type { JobSpec } from "./job_request.ts";

export const JOB_STATES = [
  "queued",
  "planning",
  "map",
  "reduce",
  "committing",
  "succeeded",
  "failed",
  "cancelled",
] as const;
export type JobState = (typeof JOB_STATES)[number];

export function isJobState(text: string): text is JobState {
  return JOB_STATES.some((state) => state === text);
}

export function isFinal(state: JobState): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

/** Why an attempt ended without output; it decides what is charged and retried. */
export const FAILURE_CLASSES = [
  "user", // the script is at fault: counts against max_attempts
  "infra", // storage, lost lease: retried with backoff, not charged
  "input", // the input is gone or changed, or storage refuses what is asked of it: no retry can help
  "preempted", // handed back by a worker that leaves: retried at once
  "revoked", // the leader asked for it
] as const;
export type FailureClass = (typeof FAILURE_CLASSES)[number];

export interface JobError {
  class: string;
  message: string;
  task: string;
  attempt: string;
  logTail: string;
}

export interface PhaseProgress {
  done: number;
  total: number;
  running: number;
  bytesDone: number;
  bytesTotal: number;
  records: number;
}

/** A step of a job, as far as it was begun; it is a job by itself. */
export interface StepView {
  id: JobId;
  /** From 0. */
  step: number;
  state: JobState;
  map: PhaseProgress;
  reduce: PhaseProgress;
  error: JobError | undefined;
}

/** What a client is told of a job. Times are milliseconds since the Unix epoch, 0: not yet. */
export interface JobView {
  id: JobId;
  state: JobState;
  /** Whose it is, where clients have names. */
  owner: string;
  spec: JobSpec;
  map: PhaseProgress;
  shuffle: PhaseProgress;
  reduce: PhaseProgress;
  submittedAtMs: number;
  startedAtMs: number;
  finishedAtMs: number;
  counters: Record<string, number>;
  output: string;
  error: JobError | undefined;
  /** Of a job that has not ended: its newest failure. */
  lastError: JobError | undefined;
  attemptsFailed: number;
  attemptsLost: number;
  /** Input records that were set aside. */
  badRecords: number;
  /** Of a job with steps, those that were begun. */
  steps: StepView[];
}

export const TASK_STATES = [
  "pending",
  "running",
  "done",
  "stopped", // its job has ended without it
] as const;

export interface TaskView {
  id: string;
  state: (typeof TASK_STATES)[number];
  failures: number;
  lastError: string;
  attempts: {
    id: string;
    worker: string;
    state: string;
    bytesIn: number;
    bytesTotal: number;
    status: string;
  }[];
}

export interface WorkerView {
  id: string;
  host: string;
  pid: number;
  slots: number;
  reducesPerSlot: number;
  /** Slots that could take a map task now. */
  free: number;
  attempts: string[];
  state: "connected" | "away" | "probation";
}
