import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { MrError } from "../model/errors.ts";
import {
  FAILURE_CLASSES,
  type JobError,
  type JobState,
  type JobView,
  type PhaseProgress,
  TASK_STATES,
  type TaskView,
  type WorkerView,
} from "../model/job.ts";
import { type JobSpec, parseJobRequest, type StepSpec } from "../model/job_request.ts";
import type { Worker, WorkerSchema } from "./gen/mapreduce/v1/cluster_pb.ts";
import {
  type JobError as ErrorMessage,
  type Job as JobMessage,
  JobSchema,
  JobSpecSchema,
  type JobSpec as SpecMessage,
  JobState as State,
  type Step as StepMessage,
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
  if ([message, ...message.steps].some(({ $unknown }) => $unknown !== undefined))
    throw unknownFields();
  const several = [message.data, ...message.moreData].filter((data) => data !== "");
  const common: Record<string, unknown> = {
    data: several.length > 1 ? several : message.data,
    name: message.name,
    env: message.env,
    conf: message.conf,
    files: message.files,
    priority: message.priority,
    network: message.network,
  };
  if (message.output !== "") common.output = message.output;
  if (message.from !== "") common.from = message.from;
  if (message.maxAttempts !== 0) common.max_attempts = message.maxAttempts;
  if (message.phase !== "") common.phase = message.phase;
  if (message.steps.length > 0) {
    // What does not go with steps is refused there, as in any other request.
    const own = Object.entries(stepFromMessage(message)).filter(([, value]) => isSaid(value));
    const steps = message.steps.map(stepFromMessage);
    return parseJobRequest({ ...Object.fromEntries(own), ...common, steps });
  }
  return parseJobRequest({ ...common, ...stepFromMessage(message) });
}

export function unknownFields(): MrError {
  const why = "the request says what this master does not know: upgrade it first";
  return new MrError("invalid", why);
}

function isSaid(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return value !== undefined && value !== "" && value !== 0;
}

function stepFromMessage(message: StepMessage | SpecMessage): Record<string, unknown> {
  const given: Record<string, unknown> = {
    mapper: message.mapper,
    m_num: message.mNum,
    env: message.env,
    conf: message.conf,
    files: message.files,
    max_bad_records: message.maxBadRecords,
    partitioner: message.partitioner === "" ? undefined : message.partitioner,
    output_format: message.outputFormat,
  };
  if (message.rNum !== undefined) given.r_num = message.rNum;
  if (message.reducer !== "") given.reducer = message.reducer;
  if (message.combiner !== "") given.combiner = message.combiner;
  if (message.taskTimeout !== undefined) given.task_timeout = message.taskTimeout;
  return given;
}

/** The leader's word: what was accepted once is not judged again by newer rules. */
function storedSpec(message: SpecMessage | undefined): JobSpec {
  const spec = message ?? create(JobSpecSchema);
  return {
    ...storedStep(spec),
    data: [spec.data, ...spec.moreData],
    phase: spec.phase === "map" || spec.phase === "reduce" ? spec.phase : "",
    name: spec.name,
    output: spec.output,
    from: spec.from,
    priority: spec.priority,
    max_attempts: spec.maxAttempts,
    network: spec.network,
    steps: spec.steps.map(storedStep),
  };
}

function storedStep(message: StepMessage | SpecMessage): StepSpec {
  const { mapper, reducer, combiner, partitioner, env, conf, files } = message;
  return {
    mapper,
    reducer,
    combiner,
    partitioner,
    output_format: message.outputFormat === "hadoop" ? "hadoop" : "",
    m_num: message.mNum,
    r_num: message.rNum ?? 0,
    env,
    conf,
    files,
    max_bad_records: message.maxBadRecords,
  };
}

export function specToMessage(spec: JobSpec) {
  return {
    ...stepToMessage(spec),
    data: spec.data[0] ?? "",
    moreData: spec.data.slice(1),
    phase: spec.phase,
    name: spec.name,
    output: spec.output,
    from: spec.from,
    priority: spec.priority,
    maxAttempts: spec.max_attempts,
    network: spec.network,
    steps: spec.steps.map(stepToMessage),
  };
}

function stepToMessage(step: StepSpec) {
  const { mapper, reducer, combiner, partitioner, env, conf, files } = step;
  return {
    mapper,
    reducer,
    combiner,
    partitioner,
    outputFormat: step.output_format,
    mNum: step.m_num,
    rNum: step.r_num,
    env,
    conf,
    files,
    maxBadRecords: step.max_bad_records,
  };
}

export function stateToMessage(state: JobState): State {
  return STATES.find(([, name]) => name === state)?.[0] ?? State.UNSPECIFIED;
}

export function stateFromMessage(state: State): JobState | undefined {
  return STATES.find(([code]) => code === state)?.[1];
}

function errorFromMessage(error: ErrorMessage): JobError {
  const { class: why, message, task, attempt, logTail } = error;
  return { class: why, message, task, attempt, logTail };
}

/** @param withSpec whether its specification goes with it, which may be long. */
export function jobToMessage(job: JobView, withSpec = true): JobMessage {
  const counters: Record<string, bigint> = {};
  for (const [name, value] of Object.entries(job.counters)) counters[name] = big(value);
  return create(JobSchema, {
    id: job.id,
    state: stateToMessage(job.state),
    owner: job.owner,
    ...(withSpec && { spec: specToMessage(job.spec) }),
    map: phaseToMessage(job.map),
    shuffle: phaseToMessage(job.shuffle),
    reduce: phaseToMessage(job.reduce),
    submittedAtMs: big(job.submittedAtMs),
    startedAtMs: big(job.startedAtMs),
    finishedAtMs: big(job.finishedAtMs),
    counters,
    output: job.output,
    ...(job.error === undefined ? {} : { error: job.error }),
    ...(job.lastError === undefined ? {} : { lastError: job.lastError }),
    attemptsFailed: job.attemptsFailed,
    attemptsLost: job.attemptsLost,
    badRecords: big(job.badRecords),
    steps: job.steps.map(({ id, step, state, map, reduce, error }) => ({
      id,
      step,
      state: stateToMessage(state),
      map: phaseToMessage(map),
      reduce: phaseToMessage(reduce),
      ...(error === undefined ? {} : { error }),
    })),
  });
}

/** @param spec of the job, where the message comes without. */
export function jobFromMessage(message: JobMessage | undefined, spec?: JobSpec): JobView {
  const state = message && stateFromMessage(message.state);
  if (message === undefined || state === undefined)
    throw new MrError("internal", "the leader's answer has no job, or one in an unknown state");
  const counters: Record<string, number> = {};
  for (const [name, value] of Object.entries(message.counters)) counters[name] = Number(value);
  const { error, lastError } = message;
  return {
    id: message.id,
    state,
    owner: message.owner,
    spec: (message.spec === undefined ? spec : undefined) ?? storedSpec(message.spec),
    map: phaseFromMessage(message.map),
    shuffle: phaseFromMessage(message.shuffle),
    reduce: phaseFromMessage(message.reduce),
    submittedAtMs: Number(message.submittedAtMs),
    startedAtMs: Number(message.startedAtMs),
    finishedAtMs: Number(message.finishedAtMs),
    counters,
    output: message.output,
    error: error && errorFromMessage(error),
    lastError: lastError && errorFromMessage(lastError),
    attemptsFailed: message.attemptsFailed,
    attemptsLost: message.attemptsLost,
    badRecords: Number(message.badRecords),
    steps: message.steps.map((step) => ({
      id: step.id,
      step: step.step,
      state: stateFromMessage(step.state) ?? "queued",
      map: phaseFromMessage(step.map),
      reduce: phaseFromMessage(step.reduce),
      error: step.error && errorFromMessage(step.error),
    })),
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
    state: TASK_STATES.find((state) => state === task.state) ?? "pending",
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
  const { id, host, pid, slots, reducesPerSlot, free, attempts } = worker;
  const state =
    worker.state === "away" || worker.state === "probation" ? worker.state : "connected";
  return { id, host, pid, slots, reducesPerSlot, free, attempts, state };
}

export function isFailureClass(text: string): text is (typeof FAILURE_CLASSES)[number] {
  return FAILURE_CLASSES.some((known) => known === text);
}

/** Counts on the wire are whole. */
export function big(value: number): bigint {
  const most = Number.MAX_SAFE_INTEGER;
  return BigInt(Math.round(Math.max(-most, Math.min(most, value)) || 0));
}
