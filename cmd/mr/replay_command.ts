import { mkdir, readdir } from "node:fs/promises";
import { totalmem } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";
import { MrError, messageOf } from "../../internal/model/errors.ts";
import { isJobId, parseAttemptId, parseTaskId } from "../../internal/model/ids.ts";
import { fileFault } from "../../internal/model/request_fields.ts";
import { type Assignment, inputRangeSchema, sourceSchema } from "../../internal/model/task.ts";
import { Runner } from "../../internal/streaming/runner.ts";
import { UNLIMITED } from "../../internal/streaming/script_process.ts";
import { type Replayed, replayTask } from "../../internal/worker/replay.ts";
import { createLogger } from "../common/logger.ts";
import { Client, type JobJson, ServerError } from "./client.ts";
import { type Command, SERVER_FLAG, UsageError } from "./options.ts";
import { ProxyStore } from "./proxy_store.ts";
import { say as sayLine, show } from "./terminal.ts";

/** One script at a time has this machine. */
const LIMITS = { ...UNLIMITED, memoryBytes: Math.floor(totalmem() * 0.9) };
const MB = 1024 * 1024;

export const replayCommand: Command = {
  name: "replay",
  usage: "JOB TASK [ATTEMPT]",
  summary:
    "Runs one task of a job again, here: the same bytes, files and environment. Its stderr comes to this\n" +
    "terminal; what it read, printed and worked in is left in --dir, with a run.sh to do it by hand\n" +
    "(in a debugger, say). When it fails, the record is found that it fails at. A failed job's reduce\n" +
    "tasks can be run again for a day, map tasks as long as the job is remembered and its input is there.",
  flags: {
    dir: { value: "DIR", help: "a new or empty folder (default replay-JOB-TASK)" },
    ...SERVER_FLAG,
  },
  positionals: [2, 3],
  async run(args) {
    const client = Client.from(args);
    const [job = "", task = "", attempt] = args.positionals;
    if (!isJobId(job)) throw new UsageError(`${job}: the id of a job is expected`);
    if (parseTaskId(task) === undefined)
      throw new UsageError(`${task}: a task is expected, such as m-00000 (mr status JOB --tasks)`);
    const folder = resolve(args.text("dir") ?? `replay-${job}-${task}`);
    const id = `${job}/${task}/${attempt ?? (await lastAttempt(client, job, task))}`;
    if (parseAttemptId(id) === undefined) throw new UsageError(`${attempt}: no attempt's name`);
    const replayed = await replayHere(client, id, folder);
    sayLine(`${sayReplayed(replayed)}\n${whatIsIn(folder, replayed)}`);
    return replayed.failure === undefined ? 0 : 1;
  },
};

/** Runs the task of an attempt in a folder that is made if need be, and must be empty. */
export async function replayHere(
  client: Client,
  attempt: string,
  folder: string,
  say = (text: string) => show(process.stderr, text),
): Promise<Replayed> {
  await mkdir(folder, { recursive: true });
  if ((await readdir(folder)).length > 0) throw new UsageError(`${folder} is not empty`);
  const assignment = await fetchAssignment(client, attempt);
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  process.once("SIGINT", interrupt);
  await using runner = await openRunner(folder);
  try {
    return await replayTask({
      assignment,
      store: new ProxyStore(client),
      folder,
      options: {
        files: { oneBytes: 0, allBytes: 0 },
        sortBytes: 64 * MB,
        lineBytesMax: 256 * MB,
        mergeBytes: Number.POSITIVE_INFINITY,
        limits: { map: LIMITS, reduce: LIMITS },
        code: { runner: runner.address, pipIndexUrl: undefined },
      },
      signal: interrupted.signal,
      say,
    });
  } catch (error) {
    if (interrupted.signal.aborted) throw new ServerError(0, "interrupted");
    if (error instanceof MrError)
      throw new ServerError(0, `what this task read cannot be had any more: ${error.message}`);
    throw error;
  } finally {
    process.removeListener("SIGINT", interrupt);
  }
}

async function openRunner(folder: string): Promise<Runner> {
  try {
    const logger = createLogger("replay", "silent");
    return await Runner.open({ socket: undefined, folder, logger });
  } catch (error) {
    throw new ServerError(0, messageOf(error));
  }
}

/** The one the job failed with, or that won. */
async function lastAttempt(client: Client, job: string, task: string): Promise<string> {
  const { error } = await client.json<JobJson>(`/jobs/${job}`);
  if (error?.task === task) return parseAttemptId(error.attempt)?.attempt ?? error.attempt;
  const { tasks } = await client.json<{ tasks: { id: string; attempts: { id: string }[] }[] }>(
    `/jobs/${job}/tasks`,
  );
  return tasks.find(({ id }) => id === task)?.attempts[0]?.id ?? "0-0";
}

/** Nothing the server says becomes a path here unless it is a plain name. */
const assignmentSchema = z.object({
  attempt: z.string(),
  job: z.object({
    id: z.string(),
    name: z.string(),
    command: z.string(),
    combiner: z.string(),
    partitioner: z.string(),
    outputFormat: z.string(),
    sortValues: z.boolean(),
    files: z.array(z.string().refine((file) => fileFault(file) === undefined)),
    scripts: z.record(z.string(), z.string()),
    env: z.record(z.string(), z.string()),
    conf: z.record(z.string(), z.string()),
    maps: z.int(),
    reduces: z.int(),
    output: z.string(),
    badRecordsMax: z.int(),
    badOutput: z.string(),
    network: z.boolean(),
  }),
  input: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("map"), split: z.array(inputRangeSchema), narrow: z.boolean() }),
    z.object({
      kind: z.literal("reduce"),
      partition: z.int(),
      sources: z.array(sourceSchema),
      keys: z.object({ from: z.base64().optional(), to: z.base64().optional() }).optional(),
    }),
  ]),
});

async function fetchAssignment(client: Client, attempt: string): Promise<Assignment> {
  const [job = "", task = "", name = ""] = attempt.split("/");
  const path = `/jobs/${job}/tasks/${task}/attempts/${name}/assignment`;
  const { input, ...rest } = assignmentSchema.parse(await client.json(path));
  if (input.kind === "map") return { ...rest, input };
  const { from, to } = input.keys ?? {};
  const bytes = (text: string | undefined) =>
    text === undefined ? undefined : Buffer.from(text, "base64");
  const keys = input.keys && { from: bytes(from), to: bytes(to) };
  return { ...rest, input: { ...input, keys } };
}

const LINE_CHARS_SHOWN = 500;

/** How it went, and the record at which it went wrong. */
export function sayReplayed({ failure, culprit }: Replayed): string {
  if (failure === undefined) return "it succeeded here";
  const lines = [`it fails: ${failure}`];
  if (culprit === undefined) return lines.join("\n");
  const { record, line, place } = culprit;
  if (record === 0) return [...lines, "  before it has read anything"].join("\n");
  const where = place === undefined ? "" : `, byte ${place.offset} of ${place.blob}`;
  const text = line.toString().replace(/\n$/, "");
  const shown = text.length > LINE_CHARS_SHOWN ? `${text.slice(0, LINE_CHARS_SHOWN)} ...` : text;
  return [...lines, `  at record ${record} of its input${where}:`, `  ${shown}`].join("\n");
}

function whatIsIn(folder: string, { inputs }: Replayed): string {
  return `left in ${folder}: ${inputs.map((path) => path.slice(folder.length + 1)).join(", ")}, output, run/work; again by hand: ${join(folder, "run.sh")}`;
}
