/**
 * Identifiers. All are safe as blob name segments and as keys.
 *
 *   job      20261122-140512-k3f9x2      when it was submitted, and chance
 *   step     JOB.2                       a step of a job is a job
 *   task     m-00003, r-00001            kind and index within its job
 *   attempt  JOB/m-00003/17-2            task, the granting leader's epoch, its grant number
 *
 * Grants are not recorded, so a new leader cannot know the numbers its
 * predecessor gave out: the epoch is what keeps attempts of two leaders apart.
 */
export type JobId = string;
export type TaskId = string;
export type AttemptId = string;
export type WorkerId = string;
export type TaskKind = "map" | "reduce";

export function jobId(wallMs: number, random: string): JobId {
  const stamp = new Date(wallMs).toISOString().replace(/[-:]/g, "").slice(0, 15).replace("T", "-");
  return `${stamp}-${random}`;
}

const JOB = /\d{8}-\d{6}-[a-z0-9]{6}(?:\.[1-9]\d{0,2})?/;
const WHOLE_JOB = new RegExp(`^${JOB.source}$`);
const ATTEMPT = new RegExp(`^(${JOB.source})/([mr]-\\d{5})/(\\d+-\\d+)$`);

export function isJobId(text: string): boolean {
  return WHOLE_JOB.test(text);
}

/** @param step from 0. */
export function stepId(job: JobId, step: number): JobId {
  return `${job}.${step + 1}`;
}

/** The job that a step belongs to; of any other job, itself. */
export function pipelineOf(id: JobId): JobId {
  const dot = id.indexOf(".");
  return dot < 0 ? id : id.slice(0, dot);
}

export function taskId(kind: TaskKind, index: number): TaskId {
  return `${kind === "map" ? "m" : "r"}-${String(index).padStart(5, "0")}`;
}

export function parseTaskId(text: string): { kind: TaskKind; index: number } | undefined {
  const match = /^([mr])-(\d{5})$/.exec(text);
  if (match === null) return undefined;
  return { kind: match[1] === "m" ? "map" : "reduce", index: Number(match[2]) };
}

export function attemptId(job: JobId, task: TaskId, epoch: number, grant: number): AttemptId {
  return `${job}/${task}/${epoch}-${grant}`;
}

export interface AttemptName {
  job: JobId;
  task: TaskId;
  kind: TaskKind;
  index: number;
  /** EPOCH-GRANT: the attempt's name within its task. */
  attempt: string;
}

export function parseAttemptId(text: AttemptId): AttemptName | undefined {
  const match = ATTEMPT.exec(text);
  if (match === null) return undefined;
  const [, job = "", task = "", attempt = ""] = match;
  const kind = task.startsWith("m") ? "map" : "reduce";
  return { job, task, kind, index: Number(task.slice(2)), attempt };
}

/** part-00000: the name Hadoop gives the result of one task, with its compression's ending. */
export function partName(index: number, extension = ""): string {
  return `part-${String(index).padStart(5, "0")}${extension}`;
}
