import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { MrError } from "../model/errors.ts";
import {
  FAILURE_CLASSES,
  type JobSpec,
  type JobState,
  type JobView,
  type PhaseProgress,
  parseJobRequest,
  type TaskView,
  type WorkerView,
} from "../model/job.ts";
import type { Worker, WorkerSchema } from "./gen/mapreduce/v1/cluster_pb.ts";
import {
  type Job as JobMessage,
  JobSchema,
  type JobSpec as SpecMessage,
  JobState as State,
  type Task,
  type TaskSchema,
} from "./gen/mapreduce/v1/job_pb.ts";

/** Between the messages on the wire and the words of the model: jobs, tasks, workers. */

const STATES: [State, JobState][] = [
  [State.QUEUED, "queued"],
  [State.PLANNING, "planning"],
  [State.MAP, "map"],
  [State.REDUCE, "reduce"],
  [State.COMMITTING, "committing"],
  [State.SUCCEEDED, "succeeded"],
  [State.FAILED, "failed"],
  [State.CANCELLED, "cancelled"],
];

/** A specification as JSON would have it, validated like one. Absent and default are the same. */
export function specFromMessage(message: SpecMessage | undefined): JobSpec {
  if (message === undefined) return parseJobRequest({});
  const given: Record<string, unknown> = {
    mapper: message.mapper,
    data: message.data,
    m_num: message.mNum,
    name: message.name,
    env: message.env,
    conf: message.conf,
    files: message.files,
    priority: message.priority,
  };
  if (message.rNum !== undefined) given.r_num = message.rNum;
  if (message.reducer !== "") given.reducer = message.reducer;
  if (message.phase !== "") given.phase = message.phase;
  if (message.output !== "") given.output = message.output;
  if (message.from !== "") given.from = message.from;
  if (message.maxAttempts !== 0) given.max_attempts = message.maxAttempts;
  given.max_bad_records = message.maxBadRecords;
  return parseJobRequest(given);
}

/** The leader's word: what was accepted once is not judged again by newer rules. */
function storedSpec(message: SpecMessage | undefined): JobSpec {
  return {
    mapper: message?.mapper ?? "",
    reducer: message?.reducer ?? "",
    data: message?.data ?? "",
    m_num: message?.mNum ?? 0,
    r_num: message?.rNum ?? 0,
    phase: message?.phase === "map" || message?.phase === "reduce" ? message.phase : "",
    name: message?.name ?? "",
    env: message?.env ?? {},
    conf: message?.conf ?? {},
    files: message?.files ?? [],
    output: message?.output ?? "",
    from: message?.from ?? "",
    priority: message?.priority ?? 0,
    max_attempts: message?.maxAttempts ?? 0,
    max_bad_records: message?.maxBadRecords ?? 0,
  };
}

export function specToMessage(spec: JobSpec) {
  return {
    mapper: spec.mapper,
    reducer: spec.reducer,
    data: spec.data,
    mNum: spec.m_num,
    rNum: spec.r_num,
    phase: spec.phase,
    name: spec.name,
    env: spec.env,
    conf: spec.conf,
    files: spec.files,
    output: spec.output,
    from: spec.from,
    priority: spec.priority,
    maxAttempts: spec.max_attempts,
    maxBadRecords: spec.max_bad_records,
  };
}

export function jobToMessage(job: JobView): JobMessage {
  const counters: Record<string, bigint> = {};
  for (const [name, value] of Object.entries(job.counters)) counters[name] = big(value);
  return create(JobSchema, {
    id: job.id,
    state: STATES.find(([, name]) => name === job.state)?.[0] ?? State.UNSPECIFIED,
    spec: specToMessage(job.spec),
    map: phaseToMessage(job.map),
    shuffle: phaseToMessage(job.shuffle),
    reduce: phaseToMessage(job.reduce),
    submittedAtMs: big(job.submittedAtMs),
    startedAtMs: big(job.startedAtMs),
    finishedAtMs: big(job.finishedAtMs),
    counters,
    output: job.output,
    ...(job.error === undefined ? {} : { error: job.error }),
    attemptsFailed: job.attemptsFailed,
    attemptsLost: job.attemptsLost,
    badRecords: big(job.badRecords),
  });
}

export function jobFromMessage(message: JobMessage | undefined): JobView {
  const state = STATES.find(([code]) => code === message?.state)?.[1];
  if (message === undefined || state === undefined)
    throw new MrError("internal", "the leader's answer has no job, or one in an unknown state");
  const counters: Record<string, number> = {};
  for (const [name, value] of Object.entries(message.counters)) counters[name] = Number(value);
  const { error } = message;
  return {
    id: message.id,
    state,
    spec: storedSpec(message.spec),
    map: phaseFromMessage(message.map),
    shuffle: phaseFromMessage(message.shuffle),
    reduce: phaseFromMessage(message.reduce),
    submittedAtMs: Number(message.submittedAtMs),
    startedAtMs: Number(message.startedAtMs),
    finishedAtMs: Number(message.finishedAtMs),
    counters,
    output: message.output,
    error: error && {
      class: error.class,
      message: error.message,
      task: error.task,
      attempt: error.attempt,
      logTail: error.logTail,
    },
    attemptsFailed: message.attemptsFailed,
    attemptsLost: message.attemptsLost,
    badRecords: Number(message.badRecords),
  };
}

function phaseToMessage(phase: PhaseProgress) {
  return {
    done: phase.done,
    total: phase.total,
    running: phase.running,
    bytesDone: big(phase.bytesDone),
    bytesTotal: big(phase.bytesTotal),
    records: big(phase.records),
  };
}

function phaseFromMessage(phase: JobMessage["map"]): PhaseProgress {
  return {
    done: phase?.done ?? 0,
    total: phase?.total ?? 0,
    running: phase?.running ?? 0,
    bytesDone: Number(phase?.bytesDone ?? 0),
    bytesTotal: Number(phase?.bytesTotal ?? 0),
    records: Number(phase?.records ?? 0),
  };
}

export function taskToMessage(task: TaskView): MessageInitShape<typeof TaskSchema> {
  return {
    ...task,
    attempts: task.attempts.map((attempt) => ({
      ...attempt,
      bytesIn: big(attempt.bytesIn),
      bytesTotal: big(attempt.bytesTotal),
    })),
  };
}

export function taskFromMessage(task: Task): TaskView {
  const { id, failures, lastError } = task;
  return {
    id,
    failures,
    lastError,
    state: task.state === "done" || task.state === "running" ? task.state : "pending",
    attempts: task.attempts.map((attempt) => ({
      id: attempt.id,
      worker: attempt.worker,
      state: attempt.state,
      bytesIn: Number(attempt.bytesIn),
      bytesTotal: Number(attempt.bytesTotal),
      status: attempt.status,
    })),
  };
}

export function workerToMessage(worker: WorkerView): MessageInitShape<typeof WorkerSchema> {
  return worker;
}

export function workerFromMessage(worker: Worker): WorkerView {
  const { id, host, pid, slots, free, attempts } = worker;
  const state =
    worker.state === "away" || worker.state === "probation" ? worker.state : "connected";
  return { id, host, pid, slots, free, attempts, state };
}

export function isFailureClass(text: string): text is (typeof FAILURE_CLASSES)[number] {
  return FAILURE_CLASSES.some((known) => known === text);
}

/** Counts on the wire are whole. */
export function big(value: number): bigint {
  const most = Number.MAX_SAFE_INTEGER;
  return BigInt(Math.round(Math.max(-most, Math.min(most, value)) || 0));
}
