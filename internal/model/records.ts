import { z } from "zod";
import { MrError, messageOf } from "./errors.ts";
import { type JobSpec, NO_SPEC } from "./job_request.ts";
import { keptObject } from "./kept_object.ts";
import { badRecordsSchema, inputRangeSchema, taskOutputSchema, taskStatsSchema } from "./task.ts";

/**
 * What the coordinator keeps. Keys:
 *
 *   job/ID/spec              accepted (before the client is told)
 *   job/ID/plan/00000        the plan: splits one after the other; counts once `planned` stands
 *   job/ID/planned
 *   job/ID/done/m-00003      the winner of a task, once
 *   job/ID/fails/m-00003     failure counts
 *   job/ID/lost/m-00003      instead of `done`: its output was lost, and what it was
 *   job/ID/stale             reduce attempts up to this grant rest on an output that was lost
 *   job/ID/cuts              where reduces by ranges of keys begin: at most 2,000 keys of 256 bytes
 *   job/ID/committing        from here on the job can only succeed
 *   job/ID/report            the end; whatever else the job has is swept
 *   worker/ID                a worker with a session, so that a successor knows whom to expect
 *
 * Masters of two versions lead in turn while a cluster is upgraded: fields that one does not know it
 * keeps, and passes over. A record that it cannot read fails its job.
 *
 * No value grows with the number of tasks, nothing with maps x reduces. A plan has many tasks
 * a record: it is written and read at once, and a successor waits for each record it has to read.
 */
const jobError = keptObject({
  class: z.string(),
  message: z.string(),
  task: z.string(),
  attempt: z.string(),
  logTail: z.string(),
});

// A stored spec was a valid request once; only its form is checked again.
const storedSpec = z.custom<JobSpec>((value) => typeof value === "object" && value !== null);

/** Where a pipeline begins that goes on from another one, and what it reads there. */
const resumeSchema = keptObject({ step: z.int().min(0), data: z.array(z.string()) });
export type ResumeRecord = z.infer<typeof resumeSchema>;

export const jobRecordSchema = keptObject({
  id: z.string(),
  spec: storedSpec,
  submittedAtMs: z.number(),
  /** Order of submission within the cluster. */
  order: z.int(),
  idempotencyKey: z.string(),
  /** Whose it is, where clients have names. */
  owner: z.string().default(""),
  /** The version (ETag) of every script and file of the job, as it was accepted. */
  scripts: z.record(z.string(), z.string()),
  /** Of a step: the job it belongs to and its output, and which step it is, from 0. */
  pipeline: keptObject({ id: z.string(), step: z.int().min(0), output: z.string() }).optional(),
  resume: resumeSchema.optional(),
});
export type JobRecord = z.infer<typeof jobRecordSchema>;

const phase = keptObject({
  done: z.number(),
  total: z.number(),
  running: z.number(),
  bytesDone: z.number(),
  bytesTotal: z.number(),
  records: z.number(),
});

export const schemas = {
  spec: jobRecordSchema,
  /** Splits of the map tasks from `first` on; the first may go on where the record before ended. */
  plan: keptObject({ first: z.int().min(0), splits: z.array(z.array(inputRangeSchema)) }),
  planned: keptObject({
    maps: z.int().min(0),
    /** How many the plan's records are; any beyond were left by one that was not finished. */
    records: z.int().min(0),
    bytes: z.number(),
    startedAtMs: z.number(),
  }),
  done: keptObject({
    attempt: z.string(),
    worker: z.string(),
    output: taskOutputSchema,
    stats: taskStatsSchema,
    bad: badRecordsSchema.optional(),
  }),
  fails: keptObject({
    user: z.int().min(0),
    infra: z.int().min(0),
    class: z.string(),
    first: jobError.optional(),
    last: z.string(),
  }),
  lost: keptObject({ digest: z.string() }),
  stale: keptObject({ epoch: z.int(), grant: z.int() }),
  cuts: keptObject({ keys: z.array(z.base64()) }),
  committing: keptObject({}),
  report: keptObject({
    record: jobRecordSchema,
    state: z.enum(["succeeded", "failed", "cancelled"]),
    map: phase,
    shuffle: phase,
    reduce: phase,
    startedAtMs: z.number(),
    finishedAtMs: z.number(),
    counters: z.record(z.string(), z.number()),
    output: z.string(),
    error: jobError.optional(),
    attemptsFailed: z.number(),
    attemptsLost: z.number(),
    badRecords: z.number(),
  }),
  worker: keptObject({
    id: z.string(),
    host: z.string(),
    pid: z.number(),
    slots: z.number(),
    reducesPerSlot: z.number().default(1),
  }),
} as const;

type Schemas = typeof schemas;
export type RecordKind = keyof Schemas;
export type RecordOf<K extends RecordKind> = z.infer<Schemas[K]>;
export type PlanRecord = RecordOf<"plan">;
export type PlannedRecord = RecordOf<"planned">;
export type DoneRecord = RecordOf<"done">;
export type FailsRecord = RecordOf<"fails">;
export type LostRecord = RecordOf<"lost">;
export type StaleRecord = RecordOf<"stale">;
export type CutsRecord = RecordOf<"cuts">;
export type ReportRecord = RecordOf<"report">;

export const key = {
  job: (job: string) => `job/${job}/`,
  spec: (job: string) => `job/${job}/spec`,
  plan: (job: string, index: number) => `job/${job}/plan/${String(index).padStart(5, "0")}`,
  planned: (job: string) => `job/${job}/planned`,
  done: (job: string, task: string) => `job/${job}/done/${task}`,
  fails: (job: string, task: string) => `job/${job}/fails/${task}`,
  lost: (job: string, task: string) => `job/${job}/lost/${task}`,
  stale: (job: string) => `job/${job}/stale`,
  cuts: (job: string) => `job/${job}/cuts`,
  committing: (job: string) => `job/${job}/committing`,
  report: (job: string) => `job/${job}/report`,
  worker: (worker: string) => `worker/${worker}`,
};

/**
 * What can be told of a job whose `spec` or `report` cannot be read: so much that it can be shown.
 * @param value as it is stored.
 */
export function salvagedRecord(id: string, value: string): JobRecord {
  const given = objectIn(value);
  const { order, submittedAtMs, idempotencyKey, owner, spec } = objectOf(given.record) ?? given;
  const { name } = objectOf(spec) ?? {};
  return {
    id,
    spec: { ...NO_SPEC, name: typeof name === "string" ? name : "" },
    submittedAtMs: typeof submittedAtMs === "number" ? submittedAtMs : 0,
    order: Number.isSafeInteger(order) ? (order as number) : 0,
    idempotencyKey: typeof idempotencyKey === "string" ? idempotencyKey : "",
    owner: typeof owner === "string" ? owner : "",
    scripts: {},
  };
}

function objectIn(json: string): Record<string, unknown> {
  try {
    return objectOf(JSON.parse(json)) ?? {};
  } catch {
    return {};
  }
}

function objectOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null ? { ...value } : undefined;
}

/** @throws MrError `corrupt` naming the key. */
export function decodeRecord<K extends RecordKind>(
  kind: K,
  at: string,
  value: string,
): RecordOf<K> {
  try {
    return schemas[kind].parse(JSON.parse(value)) as RecordOf<K>;
  } catch (cause) {
    throw new MrError("corrupt", `stored record ${at} is not valid: ${messageOf(cause)}`, {
      cause,
    });
  }
}
