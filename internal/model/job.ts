import { z } from "zod";
import { MrError, type Violation } from "./errors.ts";
import { isJobId, type JobId } from "./ids.ts";
import { blobNameFault, parseLocation } from "./names.ts";

export const LIMIT = {
  bodyBytes: 256 * 1024,
  maps: 10_000,
  reduces: 2_000,
  mapsTimesReduces: 10_000_000,
  envBytes: 32 * 1024,
  /** Jobs that are not ended. */
  queuedJobs: 1_000,
  /** Input ranges in one map task: its grant must fit one message. */
  rangesPerTask: 20_000,
  /** Distinct names; what a task counts beyond them is dropped, so that the report stays small. */
  countersPerJob: 500,
  /** Input records that a job may set aside. */
  badRecords: 100_000,
  /** Input blobs of one job. */
  inputBlobs: 1_000_000,
} as const;

/** Job options by Hadoop's own names; what is not listed here is refused, not ignored. */
export const CONF_KEYS = [
  "stream.non.zero.exit.is.failure",
  "stream.minRecWrittenToEnableSkip_",
  "mapreduce.task.timeout",
] as const;

const checked =
  (fault: (text: string) => string | undefined) => (text: string, ctx: Refinement) => {
    const message = fault(text);
    if (message !== undefined) ctx.addIssue({ code: "custom", message });
  };
interface Refinement {
  addIssue(issue: { code: "custom"; message: string; path?: string[] }): void;
}

const location = z.string().superRefine(
  checked((text) => {
    const parsed = parseLocation(text);
    return typeof parsed === "string" ? parsed : undefined;
  }),
);

const commandText = z
  .string()
  .min(1, "name a script of dfs-scripts")
  .max(4096)
  .superRefine(
    checked((text) => {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
      if (/[\u0000-\u001f]/.test(text)) return "control characters are not allowed";
      const words = text.trim().split(/ +/);
      return words[0] === "" ? "name a script of dfs-scripts" : blobNameFault(words[0] ?? "");
    }),
  );

function refuse(ctx: Refinement, message: string, ...path: string[]): void {
  ctx.addIssue({ code: "custom", message, path });
}

const envName = /^[A-Za-z_][A-Za-z0-9_.]*$/;
const count = (max: number) => {
  const error = `a whole number from 0 to ${max} is expected`;
  return z.int({ error }).min(0, { error }).max(max, { error });
};

function checkEnv(env: Record<string, string>, ctx: Refinement): void {
  let bytes = 0;
  for (const [name, value] of Object.entries(env)) {
    bytes += name.length + value.length;
    if (!envName.test(name)) refuse(ctx, "not a name of an environment variable", name);
    else if (value.includes("\0")) refuse(ctx, "a value has no NUL", name);
  }
  if (bytes > LIMIT.envBytes) refuse(ctx, `at most ${LIMIT.envBytes} bytes in all`);
}

function checkConf(conf: Record<string, unknown>, ctx: Refinement): void {
  for (const key of Object.keys(conf))
    if (!CONF_KEYS.some((known) => known === key))
      refuse(ctx, `unknown option; known: ${CONF_KEYS.join(", ")}`, key);
}

/** POST /request, and the same fields of JobService.Submit. */
export const jobRequestSchema = z
  .strictObject({
    mapper: commandText,
    reducer: commandText.optional(),
    data: location,
    m_num: count(LIMIT.maps).default(0),
    r_num: count(LIMIT.reduces).optional(),
    phase: z.enum(["map", "reduce"], { error: '"map" or "reduce" is expected' }).optional(),
    name: z
      .string()
      .max(200)
      .refine((text) => !/\p{Cc}/u.test(text), "control characters are not allowed")
      .default(""),
    env: z.record(z.string(), z.string()).superRefine(checkEnv).default({}),
    conf: z
      .record(z.string(), z.union([z.string(), z.number(), z.boolean()]))
      .superRefine(checkConf)
      .default({}),
    files: z
      .array(z.string().superRefine(checked(blobNameFault)))
      .max(100)
      .superRefine((files, ctx) => {
        if (new Set(files.map(baseName)).size < files.length)
          refuse(ctx, "two files would have the same name in the working directory");
      })
      .default([]),
    output: location.optional(),
    from: z.string().refine(isJobId, "the id of a job is expected").optional(),
    priority: z.int().min(-100).max(100).default(0),
    max_attempts: z.int().min(1).max(100).default(4),
    max_bad_records: count(LIMIT.badRecords).default(0),
  })
  .superRefine((request, ctx) => {
    const add = (field: string, message: string) =>
      ctx.addIssue({ code: "custom", message, path: [field] });
    const reduces = request.r_num ?? (request.reducer === undefined ? 0 : 1);
    if (request.phase === undefined && reduces > 0 && request.reducer === undefined)
      add("reducer", "a reducer is needed when r_num is not 0");
    if (request.phase === "reduce" && request.reducer === undefined)
      add("reducer", "the reduce phase needs a reducer");
    if (request.phase !== undefined && request.r_num === 0)
      add("r_num", `the ${request.phase} phase needs an r_num of at least 1`);
    if (request.phase !== "reduce" && request.from !== undefined)
      add("from", 'only a request with "phase": "reduce" reads another job');
    if (request.phase === "map" && request.output !== undefined)
      add("output", "a map phase leaves its output in dfs-intermediate");
    for (const command of [request.mapper, request.reducer ?? ""]) {
      const script = command.trim().split(/ +/)[0] ?? "";
      const twin = request.files.find(
        (file) => file !== script && baseName(file) === baseName(script),
      );
      if (twin !== undefined) add("files", `${twin} would overwrite the script ${script}`);
    }
    const inRange = request.m_num <= LIMIT.maps && reduces <= LIMIT.reduces;
    if (inRange && request.m_num * reduces > LIMIT.mapsTimesReduces)
      add("m_num", `m_num x r_num is at most ${LIMIT.mapsTimesReduces}`);
  })
  .transform((request) => ({
    ...request,
    r_num: request.r_num ?? (request.reducer === undefined && request.phase === undefined ? 0 : 1),
    reducer: request.reducer ?? "",
    phase: request.phase ?? ("" as const),
    conf: Object.fromEntries(Object.entries(request.conf).map(([k, v]) => [k, String(v)])),
    output: (request.output ?? "").replace(/\/$/, ""),
    from: request.from ?? "",
  }));

export type JobSpec = z.output<typeof jobRequestSchema>;

/** The last segment of a blob name: how a shipped file is called in the working directory. */
export function baseName(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}

/**
 * Validates a request from outside.
 * @throws MrError `invalid` with every offending field.
 */
export function parseJobRequest(value: unknown): JobSpec {
  const parsed = jobRequestSchema.safeParse(value, { reportInput: true });
  if (parsed.success) return parsed.data;
  const violations = parsed.error.issues.flatMap(violationsOf);
  throw new MrError("invalid", "the request is not valid", { violations });
}

function violationsOf(issue: z.core.$ZodIssue): Violation[] {
  const field = issue.path.join(".");
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => ({
      field: field === "" ? key : `${field}.${key}`,
      message: "unknown field",
    }));
  if (issue.code === "invalid_type" && issue.input === undefined && field !== "")
    return [{ field, message: "the field is missing" }];
  return [{ field, message: issue.message }];
}

export type JobState =
  | "queued"
  | "planning"
  | "map"
  | "reduce"
  | "committing"
  | "succeeded"
  | "failed"
  | "cancelled";

export function isFinal(state: JobState): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

/** Why an attempt ended without output; it decides what is charged and retried. */
export const FAILURE_CLASSES = [
  "user", // the script is at fault: counts against max_attempts
  "infra", // storage, lost lease: retried with backoff, not charged
  "input", // the input is gone or changed: no retry can help
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

/** What a client is told of a job. Times are milliseconds since the Unix epoch, 0: not yet. */
export interface JobView {
  id: JobId;
  state: JobState;
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
  attemptsFailed: number;
  attemptsLost: number;
  /** Input records that were set aside. */
  badRecords: number;
}

export interface TaskView {
  id: string;
  state: "pending" | "running" | "done";
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
  free: number;
  attempts: string[];
  state: "connected" | "away" | "probation";
}
