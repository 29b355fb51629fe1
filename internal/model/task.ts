import { z } from "zod";
import type { AttemptId, TaskKind, WorkerId } from "./ids.ts";
import { keptObject } from "./kept_object.ts";

/** Bytes [start, start + length) of one version of a blob; records begin, but need not end, there. */
export const inputRangeSchema = keptObject({
  container: z.string(),
  name: z.string(),
  etag: z.string(),
  start: z.int().min(0),
  length: z.int().min(0),
  size: z.int().min(0),
});
export type InputRange = z.infer<typeof inputRangeSchema>;

/** The input of one map task. */
export type Split = InputRange[];

/** One published object of R sorted segments, then their index at `indexOffset`. */
export const segmentsSchema = keptObject({
  kind: z.literal("segments"),
  object: z.string(),
  size: z.int().min(0),
  indexOffset: z.int().min(0),
  /** Of the pairs, whatever their order: equal where two attempts made the same. */
  digest: z.string(),
  /** How large each segment is (segment_sizes.ts). */
  sizes: z.base64().max(1_000).default(""),
});
export type Segments = z.infer<typeof segmentsSchema>;

/** A map output, and the part of it that one reduce task reads; without, its index tells. */
export const sourceSchema = keptObject({
  object: z.string(),
  size: z.int().min(0),
  indexOffset: z.int().min(0),
  at: z.object({ offset: z.int().min(0), bytes: z.int().min(0) }).optional(),
});
export type Source = z.infer<typeof sourceSchema>;

/** A staged object, sealed but invisible; `token` is the backend's own. */
export const receiptSchema = keptObject({
  container: z.string(),
  name: z.string(),
  size: z.int().min(0),
  token: z.string(),
});
export type Receipt = z.infer<typeof receiptSchema>;

/** Of blocks that lie with their blob, as in Azure: they can be published under no other name. */
const TOKEN_OF_BLOCKS = /^[0-9a-f]{24}:\d{1,5}$/;

/** Whether it can be for what this group has staged: elsewhere a token begins with the group. */
export function isStagedBy(group: string, { token }: Receipt): boolean {
  return token.startsWith(`${group}/`) || TOKEN_OF_BLOCKS.test(token);
}

export const taskOutputSchema = z.union([
  segmentsSchema,
  keptObject({ kind: z.literal("part"), receipt: receiptSchema }),
]);
export type TaskOutput = z.infer<typeof taskOutputSchema>;

/** Input records that were set aside, and the staged object that holds them. */
export const badRecordsSchema = keptObject({
  records: z.int().min(1),
  receipt: receiptSchema,
});
export type BadRecords = z.infer<typeof badRecordsSchema>;

export const taskStatsSchema = keptObject({
  recordsIn: z.number(),
  bytesIn: z.number(),
  recordsOut: z.number(),
  bytesOut: z.number(),
  wallMs: z.number(),
  counters: z.record(z.string(), z.number()),
});
export type TaskStats = z.infer<typeof taskStatsSchema>;

export function newStats(): TaskStats {
  return { recordsIn: 0, bytesIn: 0, recordsOut: 0, bytesOut: 0, wallMs: 0, counters: {} };
}

/** What a task needs to know of its job. */
export interface TaskJob {
  id: string;
  name: string;
  /** The mapper in a map task, the reducer in a reduce task. */
  command: string;
  /** "": none. */
  combiner: string;
  /** "" or a name that `partitionerKind` knows. */
  partitioner: string;
  outputFormat: string;
  /** Lines of one key are kept in order too. */
  sortValues: boolean;
  files: string[];
  /** ETags of the command's script and the files, by name. */
  scripts: Record<string, string>;
  env: Record<string, string>;
  conf: Record<string, string>;
  maps: number;
  reduces: number;
  output: string;
  /** Input records of the whole job that may be set aside. */
  badRecordsMax: number;
  /** CONTAINER/PREFIX of the folder for them, one file a task. */
  badOutput: string;
  /** Its scripts may make connections. */
  network: boolean;
}

export type TaskInput =
  /** `narrow`: the mapper has failed on this split; set the records at fault aside. */
  | { kind: "map"; split: Split; narrow: boolean }
  | { kind: "reduce"; partition: number; sources: Source[]; keys: KeyBounds | undefined };

/** Map outputs of a reduce task that is not granted yet. */
export interface EarlySources {
  job: TaskJob;
  partition: number;
  sources: Source[];
  /** The indexes of their map tasks. */
  maps: number[];
}

/** The keys of a reduce task where they are spread by range: from <= key < to; undefined: no bound. */
export interface KeyBounds {
  from: Buffer | undefined;
  to: Buffer | undefined;
}

/** All that the tasks of a job are made from, besides its record. */
export const taskPlanSchema = keptObject({
  splits: z.array(z.array(inputRangeSchema)),
  /** Outputs of all map tasks; none before they are done. */
  sources: z.array(segmentsSchema),
  /** Base64 of the keys at which the ranges of reduces begin, where there are ranges. */
  cuts: z.array(z.base64()).optional(),
  maps: z.int().min(0),
  reduces: z.int().min(0),
});
export type TaskPlan = z.infer<typeof taskPlanSchema>;

export interface Assignment {
  attempt: AttemptId;
  job: TaskJob;
  input: TaskInput;
}

/** How far an attempt is, and what its script says of itself. */
export interface Progress {
  bytesIn: number;
  bytesTotal: number;
  status: string;
  counters: Record<string, number>;
}

export interface AttemptProgress extends Progress {
  attempt: AttemptId;
}

export function newProgress(): Progress {
  return { bytesIn: 0, bytesTotal: 0, status: "", counters: {} };
}

export interface WorkerInfo {
  id: WorkerId;
  host: string;
  pid: number;
  slots: number;
  /** A slot takes one map task, or so many reduce tasks, which wait for their pipes more than they work. */
  reducesPerSlot: number;
}

/** A slot has `reducesPerSlot` shares: what a task takes of them. */
export function sharesOf(kind: TaskKind, { reducesPerSlot }: WorkerInfo): number {
  return kind === "map" ? reducesPerSlot : 1;
}

/** Where in dfs-intermediate a map attempt leaves its output: under its own name. */
export function mapOutputName(attempt: AttemptId): string {
  const slash = attempt.indexOf("/");
  return `${attempt.slice(0, slash)}/map/${attempt.slice(slash + 1).replace("/", "-")}`;
}

/** The attempt that made a map output. */
export function attemptOfMapOutput(object: string): AttemptId | undefined {
  const match = /^([^/]+)\/map\/(m-\d{5})-(\d+-\d+)$/.exec(object);
  return match === null ? undefined : `${match[1]}/${match[2]}/${match[3]}`;
}

/** Where in dfs-logs an attempt's stderr goes. */
export function attemptLogName(attempt: AttemptId): string {
  const slash = attempt.indexOf("/");
  return `${attempt.slice(0, slash)}/${attempt.slice(slash + 1)}.log`;
}

export const MAP_MANIFEST = "manifest.json";

/** Sums stay within what JSON and the wire can say, however wild the script's numbers. */
export function addCounter(sum: number | undefined, amount: number): number {
  const total = (sum ?? 0) + amount;
  return Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, total));
}
