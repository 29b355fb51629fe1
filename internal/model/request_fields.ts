import { z } from "zod";
import { builtinFault, builtinReducer, isIdentity } from "./builtins.ts";
import { programOf } from "./command.ts";
import { currentName, optionFault, partitionerKind } from "./contract.ts";
import { isJobId } from "./ids.ts";
import { inputSize } from "./input_pattern.ts";
import { LIMIT } from "./limits.ts";
import { blobNameFault, joinName, parseLocation } from "./names.ts";

/** The fields of a request, each with its own check; what they must be together is job_request.ts. */
export interface Refinement {
  addIssue(issue: { code: "custom"; message: string; path?: string[] }): void;
}

const checked =
  (fault: (text: string) => string | undefined) => (text: string, ctx: Refinement) => {
    const message = fault(text);
    if (message !== undefined) ctx.addIssue({ code: "custom", message });
  };

const NOT_UNICODE = "the text is not valid Unicode";

export function refuse(ctx: Refinement, message: string, ...path: string[]): void {
  ctx.addIssue({ code: "custom", message, path });
}

/**
 * Refuses what is wrong with each, and no more than anybody reads: a body may have a hundred thousand.
 * @param entries by name; undefined: it is the whole.
 * @returns whether something was
 */
function refuseEach<T>(
  ctx: Refinement,
  entries: Iterable<readonly [name: string | undefined, value: T]>,
  fault: (value: T, name: string) => string | undefined,
): boolean {
  let faults = 0;
  for (const [name, value] of entries) {
    const message = fault(value, name ?? "");
    if (message === undefined) continue;
    refuse(ctx, message, ...(name === undefined ? [] : [name]));
    faults += 1;
    if (faults === LIMIT.violations) break;
  }
  return faults > 0;
}

/** Its values are for the checks that follow: zod would tell each that is wrong. */
const record = <T>() =>
  z.custom<Record<string, T>>(
    (value) => typeof value === "object" && value !== null && !Array.isArray(value),
    "expected an object",
  );

const location = z.string().superRefine(
  checked((text) => {
    const parsed = parseLocation(text);
    return typeof parsed === "string" ? parsed : undefined;
  }),
);

/** The longest of what a job may leave in the folder of its result. */
const LONGEST_NAME = `_bad/${LIMIT.steps}/m-00000`;

const outputLocation = location.superRefine(
  checked((text) => {
    const parsed = parseLocation(text);
    if (typeof parsed === "string") return undefined; // said before
    const fault = blobNameFault(joinName(parsed.prefix, LONGEST_NAME));
    return fault && `no part could be named under it: ${fault}`;
  }),
);

const inputs = z
  .custom<string | string[]>(
    (data) => typeof data === "string" || isList(data),
    `expected string, or a list of 1 to ${LIMIT.inputs} strings`,
  )
  .superRefine((data, ctx) => checkInputs(data, ctx))
  .transform((data) => (Array.isArray(data) ? data : [data]));

function isList(data: unknown): boolean {
  if (!Array.isArray(data) || data.length === 0 || data.length > LIMIT.inputs) return false;
  return data.every((entry) => typeof entry === "string");
}

function checkInputs(data: string | string[], ctx: Refinement): void {
  let chars = 0;
  const entries = Array.isArray(data)
    ? data.map((text, index) => [String(index), text] as const)
    : [[undefined, data] as const];
  refuseEach(ctx, entries, (text) => {
    const size = inputSize(text);
    if (typeof size === "string") return size;
    chars += size;
    return undefined;
  });
  if (chars > LIMIT.patternChars)
    refuse(
      ctx,
      `its alternatives written out, data has more than ${LIMIT.patternChars} characters`,
    );
}

const commandText = (role: "mapper" | "reducer" | "combiner") =>
  z
    .string()
    .max(4096)
    .superRefine(checked((text) => commandFault(text) ?? builtinFault(text, role)));

/** A blob of dfs-scripts, a built-in, or the absolute path of a program of the workers. */
function commandFault(text: string): string | undefined {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f]/.test(text)) return "control characters are not allowed";
  if (!text.isWellFormed()) return NOT_UNICODE;
  const program = programOf(text);
  if (program === "") return "name a script of dfs-scripts";
  return blobNameFault(program.startsWith("/") ? program.slice(1) : program);
}

/** A blob of dfs-scripts, as NAME or NAME#LINK, and what it is called where scripts run. */
export function fileOf(entry: string): { name: string; link: string } {
  const hash = entry.lastIndexOf("#");
  if (hash < 0) return { name: entry, link: baseName(entry) };
  return { name: entry.slice(0, hash), link: entry.slice(hash + 1) };
}

/** What is wrong with an entry of `files`, or undefined. */
export function fileFault(entry: string): string | undefined {
  const { name, link } = fileOf(entry);
  if (link.includes("/")) return "what follows # is a name without slashes";
  return blobNameFault(name) ?? blobNameFault(link);
}

const envName = /^[A-Za-z_][A-Za-z0-9_.]*$/;
const count = (max: number) => {
  const error = `a whole number from 0 to ${max} is expected`;
  return z.int({ error }).min(0, { error }).max(max, { error });
};

function checkEnv(env: Record<string, string>, ctx: Refinement): void {
  const entries = Object.entries(env);
  let bytes = 0;
  const isWrong = refuseEach(ctx, entries, (value, name) => {
    if (typeof value !== "string") return "expected string";
    bytes += name.length + value.length;
    return undefined;
  });
  if (isWrong) return;
  if (bytes > LIMIT.envBytes) return refuse(ctx, `at most ${LIMIT.envBytes} bytes in all`);
  refuseEach(ctx, entries, (value, name) => {
    if (!envName.test(name) || name === "__proto__") return "not a name of an environment variable";
    if (value.includes("\0")) return "a value has no NUL";
    return value.isWellFormed() ? undefined : NOT_UNICODE;
  });
}

type Conf = Record<string, string | number | boolean>;
const CONF_TYPES = new Set(["string", "number", "boolean"]);

function checkConf(conf: Conf, ctx: Refinement): void {
  const entries = Object.entries(conf);
  const isWrong = refuseEach(ctx, entries, (value) =>
    CONF_TYPES.has(typeof value) ? undefined : "expected string, number or boolean",
  );
  if (isWrong) return;
  const bytes = JSON.stringify(conf).length;
  if (bytes > LIMIT.envBytes) return refuse(ctx, `at most ${LIMIT.envBytes} bytes in all`);
  refuseEach(ctx, entries, (value, name) => optionFault(name, String(value)));
}

/** What every step of a job says. */
export const stepFields = {
  mapper: commandText("mapper"),
  reducer: commandText("reducer").optional(),
  combiner: commandText("combiner").optional(),
  partitioner: z
    .string()
    .max(200)
    .refine(
      (name) => partitionerKind(name) !== undefined,
      '"hash", "KeyFieldBasedPartitioner" or "range" is expected',
    )
    .default(""),
  output_format: z
    .enum(["", "lines", "hadoop"], { error: '"lines" or "hadoop" is expected' })
    .default(""),
  m_num: count(LIMIT.maps).default(0),
  r_num: count(LIMIT.reduces).optional(),
  env: record<string>().superRefine(checkEnv).default({}),
  conf: record<Conf[string]>()
    .superRefine(checkConf)
    .transform((conf) =>
      Object.fromEntries(Object.entries(conf).map(([k, v]) => [currentName(k), String(v)])),
    )
    .default({}),
  /** Seconds of silence after which a task is ended and tried again; 0: never. */
  task_timeout: z.number().min(0).max(999_999_999).optional(),
  files: z
    .array(z.string().superRefine(checked(fileFault)))
    .max(100)
    .default([]),
  max_bad_records: count(LIMIT.badRecords).default(0),
};

/** What a job says, whatever its steps. */
export const jobFields = {
  data: inputs,
  name: z
    .string()
    .max(200)
    .refine((text) => !/\p{Cc}/u.test(text), "control characters are not allowed")
    .refine((text) => text.isWellFormed(), NOT_UNICODE)
    .default(""),
  output: outputLocation.optional(),
  from: z.string().refine(isJobId, "the id of a job is expected").optional(),
  priority: z.int().min(-100).max(100).default(0),
  max_attempts: z.int().min(1).max(100).default(4),
  /** Whether its scripts may make connections where they otherwise could not. */
  network: z.boolean().default(false),
};

/** Whether a program is a blob of dfs-scripts, and not a built-in or a path. */
export function isBlob(program: string): boolean {
  return (
    program !== "" &&
    !program.startsWith("/") &&
    builtinReducer(program) === undefined &&
    !isIdentity(program)
  );
}

/** The last segment of a blob name: how a shipped file is called in the working directory. */
export function baseName(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}
