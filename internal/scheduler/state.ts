import type { AttemptId, JobId, TaskKind, WorkerId } from "../model/ids.ts";
import type { FailureClass, JobError, JobState } from "../model/job.ts";
import { LIMIT } from "../model/limits.ts";
import type { DoneRecord, JobRecord, ReportRecord, StaleRecord } from "../model/records.ts";
import {
  type Segments,
  type Split,
  sharesOf,
  type TaskJob,
  type WorkerInfo,
} from "../model/task.ts";

/** Times in milliseconds of the leader's monotonic clock unless a name says otherwise. */
export interface SchedulerConfig {
  heartbeatMs: number;
  /** A lease lapses this long after its last heartbeat. */
  leaseMs: number;
  /** How long the leases of a broken connection wait for its return. */
  reconnectMs: number;
  backoffMinMs: number;
  backoffMaxMs: number;
  /** Failures not charged to the script after which a task gives up all the same. */
  infraFailuresMax: number;
  /** Jobs that plan or run at a time; the rest wait as `queued`. */
  activeJobsMax: number;
  /** A job for which nothing can run keeps its place among them for so long. */
  idlePlaceMs: number;
  queuedJobsMax: number;
  /** Of these, what one client with a name may have. */
  jobsPerOwnerMax: number;
  /** A task that runs longer than this, and than the factor times the median of its phase, is backed up. */
  backupMinMs: number;
  backupFactor: number;
  /** How long the map outputs of a job stay whose reducer has failed, so that it can be run again. */
  keepFailedMs: number;
  /** How often objects that no job needs any more are looked for. */
  collectMs: number;
  /** Ended jobs are forgotten beyond this number, the oldest of whoever has most first, or this age. */
  endedJobsMax: number;
  endedAgeMaxMs: number;
  /** A task that fails within this time on so many workers, always alike, will fail on all. */
  alikeMs: number;
  alikeWorkers: number;
  /** Attempts lost in a row that put a worker on probation, and how long that lasts. */
  probationLosses: number;
  probationMs: number;
}

export const DEFAULT_SCHEDULER_CONFIG: SchedulerConfig = {
  heartbeatMs: 2_000,
  leaseMs: 10_000,
  reconnectMs: 3_000,
  backoffMinMs: 500,
  backoffMaxMs: 30_000,
  infraFailuresMax: 25,
  activeJobsMax: 64,
  idlePlaceMs: 15_000,
  queuedJobsMax: LIMIT.queuedJobs,
  jobsPerOwnerMax: LIMIT.queuedJobsPerOwner,
  backupMinMs: 1_000,
  backupFactor: 1.5,
  keepFailedMs: 24 * 3_600_000,
  collectMs: 20_000,
  endedJobsMax: 1_000,
  endedAgeMaxMs: 7 * 24 * 3_600_000,
  alikeMs: 60_000,
  alikeWorkers: 3,
  probationLosses: 3,
  probationMs: 30_000,
};

export interface State {
  readonly config: SchedulerConfig;
  readonly epoch: number;
  grants: number;
  order: number;
  jobs: Map<JobId, Job>;
  workers: Map<WorkerId, Worker>;
  /** Of all workers; undefined: to be counted again. */
  slots: number | undefined;
  attempts: Map<AttemptId, Attempt>;
  /** By owner: the live attempts of its jobs that are not revoked (owners.ts). */
  running: Map<string, number>;
  /** Workers to consider for grants, in turn. May hold some without credit. */
  idle: Set<WorkerId>;
  /** Jobs to consider for grants. May hold some with nothing to grant. */
  runnable: Set<JobId>;
  /** A job came or ended since the last look: one that is queued may begin. */
  vacancy: boolean;
  /** Some were left in the queue at the last look, and when the queue was looked at for its own sake. */
  queued: boolean;
  queueSeenMs: number;
  hold: Hold | undefined;
  /** Steps that have ended, whose pipelines are to go on. */
  endedSteps: JobId[];
  /** When to look for leftover objects next; undefined before the first tick. */
  collectAtMs: number | undefined;
  /** Attempts of this term whose leases have lapsed, and whose they were: the newest ones. */
  lapsed: Map<AttemptId, WorkerId>;
  /** Pending tasks that are to run alone (alone.ts). */
  alone: Map<Task, Job>;
}

/** After a takeover: tasks that may be running unknown to us wait for their workers to return. */
export interface Hold {
  untilMs: number;
  expected: Set<WorkerId>;
}

export type TaskState =
  | { kind: "pending" }
  /** At least one live attempt that is not revoked. */
  | { kind: "running" }
  | { kind: "done"; done: DoneRecord };

export interface Task {
  kind: TaskKind;
  index: number;
  state: TaskState;
  /** Live attempts, revoked ones included. Replaced, not changed: most tasks share an empty one. */
  attempts: readonly AttemptId[];
  userFailures: number;
  infraFailures: number;
  firstError: JobError | undefined;
  lastError: string;
  /** Of its output, which was lost; undefined: none is. */
  lostDigest: string | undefined;
  /** Workers that failed it; others are tried first. Replaced, not changed. */
  avoid: readonly WorkerId[];
  /** Workers that went without a word while they ran it, among others and alone. */
  deaths: number;
  deathsAlone: number;
  /** Workers on which it failed at once, all with this message. Replaced, not changed. */
  alike: { message: string; workers: readonly WorkerId[] };
}

export interface Phase {
  kind: TaskKind;
  tasks: Task[];
  /** Indexes that may be granted, oldest first; stale entries are skipped when met. */
  ready: number[];
  delayed: { index: number; atMs: number }[];
  done: number;
  /** Sums over done tasks. */
  bytesIn: number;
  recordsIn: number;
  outputBytes: number;
}

export interface Job {
  record: JobRecord;
  stage: Stage;
  map: Phase;
  reduce: Phase;
  /** What attempts are told of it, made once: what is the same object is encoded once, too. */
  told: Partial<Record<TaskKind, TaskJob>>;
  splits: Split[];
  splitBytes: number;
  /** How many records keep the splits. */
  planRecords: number;
  /** Outputs of all map tasks in task order, once the reduce stage has begun. */
  sources: Segments[];
  /** Base64 of the keys at which the ranges of the reduces begin, without the first; undefined: not cut. */
  cuts: string[] | undefined;
  /** They are being cut. */
  cutting: boolean;
  startedAtMs: number; // wall
  /** When it was begun, or planned, by the leader's clock: it has a place among the active ones. */
  activeSinceMs: number;
  counters: Map<string, number>;
  /** Its pending tasks wait for the hold of a takeover to end. */
  held: boolean;
  /** Live attempts that are not revoked: what fairness compares, after those of its owner. */
  running: number;
  attemptsFailed: number;
  attemptsLost: number;
  /** Input records that done tasks have set aside. */
  badRecords: number;
  /** Map tasks as they were done; one whose output was lost is there again when it was made again. */
  mapsDone: number[];
  /** Of reduce tasks that wait for the last maps: who may prepare them. */
  early: Map<number, EarlyReduce>;
  /** Reduce attempts granted up to this one rest on a map output that is no more. */
  stale: StaleRecord | undefined;
  /** The newest failure of an attempt. */
  lastError: JobError | undefined;
  /** Who may see it, by what they were given (job_lists.ts); undefined: nobody has asked. */
  seenBy: Map<string, boolean> | undefined;
}

export interface EarlyReduce {
  worker: WorkerId;
  /** So many of `mapsDone` it has heard of. */
  told: number;
}

export type Stage =
  | { kind: Exclude<JobState, "succeeded" | "failed" | "cancelled"> }
  /** Of a job with steps: the step that was begun last. */
  | { kind: "steps"; current: JobId }
  | {
      kind: "ended";
      report: ReportRecord;
      /**
       * draining: attempts must stop; sweeping: objects are deleted; done: only the
       * report is left; expiring: its logs and objects go, then the report.
       */
      cleanup: "draining" | "sweeping" | "done" | "expiring";
      /** Keys to delete once the objects are gone. */
      leftover: string[];
    };

export interface Attempt {
  id: AttemptId;
  job: JobId;
  kind: TaskKind;
  index: number;
  worker: WorkerId;
  startedAtMs: number;
  deadlineMs: number;
  /** Its task no longer counts on it; it lives on until its worker says it is gone. */
  revoked: boolean;
  /** Its worker runs nothing else. */
  alone: boolean;
  bytesIn: number;
  bytesTotal: number;
  status: string;
  /** As of its last heartbeat. */
  counters: Record<string, number>;
}

export interface Worker {
  info: WorkerInfo;
  /** The stream it speaks on; undefined while it is away. */
  session: number | undefined;
  awayUntilMs: number;
  /** In shares of its slots: what this session's grants take, those that it has seen, and what was free then. */
  sent: number;
  seen: number;
  free: number;
  /** What could wait there for a slot. */
  ahead: number;
  attempts: Set<AttemptId>;
  /** What it has announced in this session. */
  announced: ReadonlySet<AttemptId>;
  /** Recorded by an earlier leader, from which it may have attempts. */
  inherited: boolean;
  /** Given nothing new, until it is empty and has a task that is to run alone; and that one. */
  reserved: boolean;
  alone: AttemptId | undefined;
  /** Attempts lost in a row. */
  losses: number;
  probationUntilMs: number;
}

export type LossReason = {
  class: FailureClass;
  message: string;
  logTail: string;
  /** Its worker went without a word, and did not come back. */
  died?: boolean;
};

export function newState(config: SchedulerConfig, epoch: number): State {
  return {
    config,
    epoch,
    grants: 0,
    order: 0,
    jobs: new Map(),
    workers: new Map(),
    slots: undefined,
    attempts: new Map(),
    running: new Map(),
    idle: new Set(),
    runnable: new Set(),
    vacancy: true,
    queued: false,
    queueSeenMs: Number.NEGATIVE_INFINITY,
    hold: undefined,
    endedSteps: [],
    collectAtMs: undefined,
    lapsed: new Map(),
    alone: new Map(),
  };
}

export function newPhase(kind: TaskKind, size: number): Phase {
  const tasks = Array.from({ length: size }, (_, index) => newTask(kind, index));
  return {
    kind,
    tasks,
    ready: [],
    delayed: [],
    done: 0,
    bytesIn: 0,
    recordsIn: 0,
    outputBytes: 0,
  };
}

export const PENDING = { kind: "pending" } as const;
export const RUNNING = { kind: "running" } as const;
export const NONE: readonly string[] = [];
const NEVER = { message: "", workers: NONE } as const;

function newTask(kind: TaskKind, index: number): Task {
  return {
    kind,
    index,
    state: PENDING,
    attempts: NONE,
    userFailures: 0,
    infraFailures: 0,
    firstError: undefined,
    lastError: "",
    lostDigest: undefined,
    avoid: NONE,
    deaths: 0,
    deathsAlone: 0,
    alike: NEVER,
  };
}

export function newJob(record: JobRecord): Job {
  return {
    record,
    stage: { kind: "queued" },
    map: newPhase("map", 0),
    reduce: newPhase("reduce", 0),
    told: {},
    splits: [],
    splitBytes: 0,
    planRecords: 0,
    sources: [],
    cuts: undefined,
    cutting: false,
    startedAtMs: 0,
    activeSinceMs: 0,
    counters: new Map(),
    held: false,
    running: 0,
    attemptsFailed: 0,
    attemptsLost: 0,
    badRecords: 0,
    mapsDone: [],
    early: new Map(),
    stale: undefined,
    lastError: undefined,
    seenBy: undefined,
  };
}

/** The phase whose tasks are granted now. */
export function currentPhase(job: Job): Phase | undefined {
  if (job.stage.kind === "map") return job.map;
  if (job.stage.kind === "reduce") return job.reduce;
  return undefined;
}

/** The one way to queue a task: its job is considered for grants from now on (S3). */
export function makeReady(
  state: State,
  job: Job,
  phase: Phase,
  index: number,
  where: "first" | "last",
): void {
  if (where === "first") phase.ready.unshift(index);
  else phase.ready.push(index);
  const task = phase.tasks[index];
  if (task !== undefined && mustRunAlone(task)) state.alone.set(task, job);
  state.runnable.add(job.record.id);
}

export function sharesNeeded(task: Task, worker: Worker): number {
  return sharesOf(task.kind, worker.info);
}

export function winners(phase: Phase): DoneRecord[] {
  return phase.tasks.flatMap((task) => (task.state.kind === "done" ? task.state.done : []));
}

/** What reduce tasks read. */
export function segmentsOf(job: Job): Segments[] {
  return winners(job.map).flatMap((done) => (done.output.kind === "segments" ? done.output : []));
}

/** Deaths of workers after which a task runs alone; and then, after which it is given up. */
export const DEATHS_MAX = 3;

export function mustRunAlone(task: Task): boolean {
  return task.deaths >= DEATHS_MAX;
}

export function stateOf(job: Job): JobState {
  if (job.stage.kind === "ended") return job.stage.report.state;
  return job.stage.kind === "steps" ? "map" : job.stage.kind;
}

/** CONTAINER/PREFIX of the folder for records that are set aside: a step's lie with the whole result. */
export function badOutputOf(record: JobRecord): string {
  const { pipeline } = record;
  if (pipeline === undefined) return `${outputOf(record)}/_bad`;
  return `${pipeline.output}/_bad/${pipeline.step + 1}`;
}

/** CONTAINER/PREFIX of the result. */
export function outputOf(record: JobRecord): string {
  if (record.spec.phase === "map") return `dfs-intermediate/${record.id}`;
  return record.spec.output === "" ? `dfs-dest/${record.id}` : record.spec.output;
}
