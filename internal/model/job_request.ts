import { z } from "zod";
import { programOf } from "./command.ts";
import { contractOf } from "./contract.ts";
import { MORE_FAULTS, MrError, type Violation } from "./errors.ts";
import { LIMIT } from "./limits.ts";
import {
  baseName,
  fileOf,
  isBlob,
  jobFields,
  type Refinement,
  refuse,
  stepFields,
} from "./request_fields.ts";

/** One map and reduce over an input: what every step of a job says. */
export type StepSpec = z.output<typeof stepSchema>;

/** A checked request. With `steps`, those say what runs, and its own step fields are empty. */
export interface JobSpec extends StepSpec {
  /** CONTAINER, CONTAINER/PREFIX or patterns, at least one. */
  data: string[];
  phase: "" | "map" | "reduce";
  name: string;
  output: string;
  from: string;
  priority: number;
  max_attempts: number;
  network: boolean;
  steps: StepSpec[];
}

interface StepFields {
  mapper: string;
  reducer?: string | undefined;
  combiner?: string | undefined;
  conf: Record<string, string>;
  files: string[];
  m_num: number;
  r_num?: number | undefined;
  task_timeout?: number | undefined;
}

function checkStep(step: StepFields, ctx: Refinement): void {
  checkWorkingFolder(step, ctx);
  const reduces = reducesOf(step);
  const inRange = step.m_num <= LIMIT.maps && reduces <= LIMIT.reduces;
  if (inRange && step.m_num * reduces > LIMIT.mapsTimesReduces)
    refuse(ctx, `m_num x r_num is at most ${LIMIT.mapsTimesReduces}`, "m_num");
}

function reducesOf({ r_num, reducer }: StepFields): number {
  return r_num ?? (reducer === undefined ? 0 : 1);
}

/** Whatever lies in a script's working directory has a name of its own there. */
function checkWorkingFolder({ mapper, reducer, combiner, files }: StepFields, ctx: Refinement) {
  const places = files.map(fileOf);
  if (new Set(places.map(({ link }) => link)).size < places.length)
    refuse(ctx, "two files would have the same name in the working directory", "files");
  const scripts = [mapper, reducer ?? "", combiner ?? ""].map(programOf).filter(isBlob);
  for (const script of scripts) {
    const twin = places.find(({ name, link }) => name !== script && link === baseName(script));
    if (twin !== undefined)
      refuse(ctx, `${twin.name} would overwrite the script ${script}`, "files");
  }
  const combines = programOf(combiner ?? "");
  for (const script of isBlob(combines) ? scripts : [])
    if (script !== combines && baseName(script) === baseName(combines))
      refuse(
        ctx,
        `${combines} and ${script} have the same name in the working directory`,
        "combiner",
      );
}

function finishedStep<T extends StepFields>(step: T) {
  const { task_timeout, ...rest } = step;
  const timeout =
    task_timeout === undefined
      ? {}
      : {
          "mapreduce.task.timeout": String(
            task_timeout === 0 ? 0 : Math.max(1, Math.round(task_timeout * 1_000)),
          ),
        };
  return {
    ...rest,
    conf: { ...rest.conf, ...timeout },
    reducer: step.reducer ?? "",
    combiner: step.combiner ?? "",
    r_num: reducesOf(step),
  };
}

const stepSchema = z
  .strictObject(stepFields)
  .superRefine((step, ctx) => {
    checkStep(step, ctx);
    if (reducesOf(step) > 0 && step.reducer === undefined)
      refuse(ctx, "a reducer is needed when r_num is not 0", "reducer");
  })
  .transform(finishedStep);

/** A job of one map and reduce, or one phase of them. */
const singleSchema = z
  .strictObject({
    ...stepFields,
    ...jobFields,
    phase: z.enum(["map", "reduce"], { error: '"map" or "reduce" is expected' }).optional(),
  })
  .superRefine((request, ctx) => {
    checkStep(request, ctx);
    const { phase, reducer, r_num } = request;
    if (phase === undefined && reducesOf(request) > 0 && reducer === undefined)
      refuse(ctx, "a reducer is needed when r_num is not 0", "reducer");
    if (phase === "reduce" && reducer === undefined)
      refuse(ctx, "the reduce phase needs a reducer", "reducer");
    if (phase !== undefined && r_num === 0)
      refuse(ctx, `the ${phase} phase needs an r_num of at least 1`, "r_num");
    if (phase !== "reduce" && request.from !== undefined)
      refuse(
        ctx,
        'only a request with "phase": "reduce", or with steps, goes on from another job',
        "from",
      );
    if (phase === "map" && request.output !== undefined)
      refuse(ctx, "a map phase leaves its output in dfs-intermediate", "output");
  })
  .transform((request): JobSpec => {
    const step = finishedStep(request);
    const reduces = request.phase === undefined ? step.r_num : (request.r_num ?? 1);
    return { ...step, ...finishedJob(request), r_num: reduces, steps: [] };
  });

function finishedJob(request: {
  output?: string | undefined;
  from?: string | undefined;
  phase?: "map" | "reduce" | undefined;
}) {
  return {
    phase: request.phase ?? ("" as const),
    output: (request.output ?? "").replace(/\/$/, ""),
    from: request.from ?? "",
  };
}

const { env, conf, files } = stepFields;

/** A job of several steps. What it says of env, conf and files holds for each of them. */
const stepsSchema = z
  .strictObject({
    ...jobFields,
    env,
    conf,
    files,
    steps: z
      .array(z.unknown())
      .min(1, "at least one step is expected")
      .max(LIMIT.steps, `at most ${LIMIT.steps} steps`),
  })
  .transform((request, ctx): JobSpec => {
    // Each step is checked with what it shares: what cannot be stored is not looked at so often.
    const shared = JSON.stringify([request.env, request.conf, request.files]).length;
    if (shared * request.steps.length > LIMIT.specBytes) {
      refuse(ctx, TOO_LARGE);
      return z.NEVER;
    }
    const steps = request.steps.flatMap((given, index): StepSpec[] => {
      if (ctx.issues.length >= LIMIT.violations) return [];
      const parsed = stepSchema.safeParse(inherited(request, given), { reportInput: true });
      if (parsed.success) return [parsed.data];
      for (const issue of parsed.error.issues)
        ctx.issues.push({ ...issue, path: ["steps", index, ...issue.path] } as never);
      return [];
    });
    return { ...request, ...finishedJob(request), ...NO_STEP, steps };
  });

const NO_STEP: StepSpec = {
  mapper: "",
  reducer: "",
  combiner: "",
  partitioner: "",
  output_format: "",
  m_num: 0,
  r_num: 0,
  env: {},
  conf: {},
  files: [],
  max_bad_records: 0,
};

/** Of a job of which no more is known. */
export const NO_SPEC: JobSpec = {
  ...NO_STEP,
  data: [],
  phase: "",
  name: "",
  output: "",
  from: "",
  priority: 0,
  max_attempts: 1,
  network: false,
  steps: [],
};

type Shared = Pick<StepSpec, "env" | "conf" | "files">;

/** A step's own words come before those of the job. */
function inherited(job: Shared, given: unknown): unknown {
  if (typeof given !== "object" || given === null || Array.isArray(given)) return given;
  const step = given as { env?: object; conf?: object; files?: unknown[] };
  return {
    ...step,
    env: isPlain(step.env) ? { ...job.env, ...step.env } : step.env,
    conf: isPlain(step.conf) ? { ...job.conf, ...step.conf } : step.conf,
    files: Array.isArray(step.files ?? []) ? [...job.files, ...(step.files ?? [])] : step.files,
  };
}

function isPlain(value: unknown): boolean {
  return (
    value === undefined || (typeof value === "object" && value !== null && !Array.isArray(value))
  );
}

/**
 * Validates a request from outside: POST /request, and the same fields of JobService.Submit.
 * @throws MrError `invalid` with every offending field.
 */
export function parseJobRequest(value: unknown): JobSpec {
  const steps = typeof value === "object" && value !== null && Object.hasOwn(value, "steps");
  const parsed = (steps ? stepsSchema : singleSchema).safeParse(value, { reportInput: true });
  if (parsed.success) return withinBounds(parsed.data);
  const violations = violationsIn(parsed.error.issues);
  throw new MrError("invalid", "the request is not valid", { violations });
}

/** What its steps share counts for each of them: the whole must fit one stored record. */
function withinBounds(spec: JobSpec): JobSpec {
  if (Buffer.byteLength(JSON.stringify(spec)) <= LIMIT.specBytes) return spec;
  throw new MrError("invalid", "the request is not valid", {
    violations: [{ field: "", message: TOO_LARGE }],
  });
}

const TOO_LARGE = `with what its steps share, the request has more than ${LIMIT.specBytes} bytes`;

/** As many as anybody reads. */
function violationsIn(issues: z.core.$ZodIssue[]): Violation[] {
  const found: Violation[] = [];
  for (const issue of issues) {
    found.push(...violationsOf(issue));
    if (found.length < LIMIT.violations) continue;
    found.length = LIMIT.violations;
    found.push({ field: "", message: MORE_FAULTS });
    break;
  }
  return found;
}

function violationsOf(issue: z.core.$ZodIssue): Violation[] {
  const field = issue.path.join(".");
  if (issue.code === "unrecognized_keys")
    return issue.keys.slice(0, LIMIT.violations).map((key) => ({
      field: field === "" ? key : `${field}.${key}`,
      message:
        field === "" && Object.hasOwn(stepFields, key)
          ? "with steps, this is said in each of them"
          : "unknown field",
    }));
  const isMissing = issue.input === undefined && field !== "";
  return [{ field, message: isMissing ? "the field is missing" : issue.message }];
}

/**
 * What the map side of a step must have in common with a reduce side that reads its
 * output: how pairs are cut, ordered and spread.
 */
export function shuffleOf(spec: JobSpec): string {
  const { mapOutput, reduceInput, partitioner, comparator, fieldSeparator } = contractOf(spec);
  return JSON.stringify([mapOutput, reduceInput, partitioner, comparator, fieldSeparator]);
}
