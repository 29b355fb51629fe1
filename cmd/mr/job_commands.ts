import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { basename } from "node:path";
import { Client, isFinal, type JobJson } from "./client.ts";
import { bytes, duration, printable, table } from "./format.ts";
import { type Args, type Command, JSON_FLAG, pairs, SERVER_FLAG, UsageError } from "./options.ts";
import { ProgressView } from "./progress.ts";

const EXIT: Record<string, number> = { succeeded: 0, failed: 1, cancelled: 3 };
const INTERRUPTED = 130;

export const runCommand: Command = {
  name: "run",
  usage: "--mapper SCRIPT [--reducer SCRIPT] --data CONTAINER[/PREFIX] [options]",
  summary:
    "Runs a job and waits for its end; the exit code is the job's (0 succeeded, 1 failed, 3 cancelled).\n" +
    "SCRIPT is a blob of dfs-scripts; a path that begins with ./, ../ or / is uploaded there first,\n" +
    "under a name of its content.",
  flags: {
    mapper: { value: "SCRIPT", help: "reads lines, prints key TAB value" },
    reducer: { value: "SCRIPT", help: "reads sorted pairs, prints the result" },
    data: { value: "LOCATION", help: "the input: a container or container/prefix" },
    maps: { value: "N", help: "map tasks (default: by the size of the input)" },
    reduces: { value: "N", help: "reduce tasks = parts of the result (default 1; 0: map-only)" },
    phase: { value: "PHASE", help: "only map or only reduce" },
    from: { value: "JOB", help: "the map phase that a reduce phase reads" },
    name: { value: "TEXT", help: "a name for people" },
    output: { value: "LOCATION", help: "where the parts go (default dfs-dest/JOB)" },
    file: {
      value: "FILE",
      multiple: true,
      help: "a further blob or ./path for the scripts' folder",
    },
    env: { value: "NAME=VALUE", multiple: true, help: "for the scripts' environment" },
    conf: { value: "NAME=VALUE", multiple: true, help: "a job option by Hadoop's name" },
    priority: { value: "N", help: "-100 to 100 (write --priority=-5); the higher goes first" },
    "max-attempts": { value: "N", help: "tries per task (default 4)" },
    "max-bad-records": {
      value: "N",
      help: "input records that may be set aside because the mapper fails on them",
    },
    show: { value: "N", help: "lines of the result to print (default 10; 0: none)" },
    detach: { help: "do not wait; print the job's id" },
    ...JSON_FLAG,
    ...SERVER_FLAG,
  },
  positionals: [0, 0],
  run: runJob,
};

async function runJob(args: Args): Promise<number> {
  const client = Client.from(args);
  for (const needed of ["mapper", "data"])
    if (args.text(needed) === undefined) throw new UsageError(`--${needed} is missing`);
  const request = {
    mapper: await placed(client, args.text("mapper")),
    reducer: await placed(client, args.text("reducer")),
    data: args.text("data"),
    m_num: args.whole("maps", 0),
    r_num: args.whole("reduces", 0),
    phase: args.text("phase"),
    from: args.text("from"),
    name: args.text("name"),
    output: args.text("output"),
    files: await Promise.all(args.list("file").map((file) => placed(client, file))),
    env: pairs("env", args.list("env")),
    conf: pairs("conf", args.list("conf")),
    priority: args.whole("priority", -100),
    max_attempts: args.whole("max-attempts", 1),
    max_bad_records: args.whole("max-bad-records", 0),
  };
  if (!args.has("detach")) return follow(client, args, (signal) => client.run(request, signal));
  const job = await client.json<JobJson>("/request", {
    method: "POST",
    headers: { prefer: "respond-async", "content-type": "application/json" },
    body: JSON.stringify(request),
  });
  process.stdout.write(args.has("json") ? `${JSON.stringify(job)}\n` : `${job.id}\n`);
  return 0;
}

/** Uploads a script given as a path; returns its name in dfs-scripts. */
async function placed(client: Client, script: string | undefined): Promise<string | undefined> {
  if (script === undefined || !/^\.{0,2}\//.test(script)) return script;
  const [path = "", ...args] = script.split(" ");
  if (!statSync(path, { throwIfNoEntry: false })?.isFile())
    throw new UsageError(`${path}: no such file (a script's name has no spaces)`);
  // Under a name of its content: two scripts called alike never take each other's place.
  const digest = createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 12);
  const name = `${digest}/${basename(path)}`;
  await client.upload(path, "dfs-scripts", name);
  return [name, ...args].join(" ");
}

/** Shows a job's progress to its end, then its result. */
export async function follow(
  client: Client,
  args: Args,
  open: (signal: AbortSignal) => AsyncIterable<JobJson>,
): Promise<number> {
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  process.once("SIGINT", interrupt);
  const view = new ProgressView(process.stderr);
  let last: JobJson | undefined;
  try {
    for await (const job of open(interrupted.signal)) {
      last = job;
      if (!args.has("json")) view.show(job);
    }
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
    const id = last?.id ?? "";
    process.stderr.write(`\nthe job goes on: mr watch ${id}, or mr cancel ${id}\n`);
    return INTERRUPTED;
  } finally {
    process.removeListener("SIGINT", interrupt);
  }
  if (last === undefined) return 1;
  if (args.has("json")) process.stdout.write(`${JSON.stringify(last)}\n`);
  else await showEnd(client, last, args.whole("show", 0) ?? 10);
  return EXIT[last.state] ?? 1;
}

async function showEnd(client: Client, job: JobJson, lines: number): Promise<void> {
  process.stderr.write(`${endOf(job)}\n`);
  if (job.state !== "succeeded" || job.phase === "map" || lines === 0) return;
  const shown = await firstLines(client, job.id, lines);
  process.stdout.write(shown.text);
  if (shown.more) process.stderr.write(`... all of it: mr cat ${job.id}\n`);
}

export function endOf(job: JobJson): string {
  const started = Date.parse(job.started_at ?? job.submitted_at);
  const tookMs = Date.parse(job.finished_at ?? job.submitted_at) - started;
  const { error } = job;
  if (error !== undefined) {
    const where = error.task === "" ? "" : ` in ${error.task}, attempt ${error.attempt}`;
    const tail = error.log_tail === "" ? "" : `\n${printable(error.log_tail).trimEnd()}`;
    return `job ${job.id} ${job.state} (${error.class}${where}): ${printable(error.message)}${tail}`;
  }
  return (
    `job ${job.id} ${job.state} in ${duration(tookMs)}: ` +
    `${job.map.records} records, ${bytes(job.map.bytes_done)} in; output in ${job.output}`
  );
}

/** The beginning of the result, at most this much of it however long its lines are. */
const SHOWN_CHARS_MAX = 64 * 1024;

async function firstLines(client: Client, id: string, count: number) {
  const stop = new AbortController();
  const response = await client.fetch(`/jobs/${id}/output`, { signal: stop.signal });
  let text = "";
  const body = response.body?.pipeThrough(new TextDecoderStream());
  if (body === undefined) return { text, more: false };
  try {
    for await (const chunk of body) {
      text += chunk.slice(0, SHOWN_CHARS_MAX);
      const end = endOfLine(text, count);
      if (end >= 0 && end < text.length) return { text: printable(text.slice(0, end)), more: true };
      if (text.length >= SHOWN_CHARS_MAX) return { text: `${printable(text)}\n`, more: true };
    }
  } finally {
    stop.abort();
  }
  return { text: printable(text), more: false };
}

/** Where line number `count` ends, or -1. */
function endOfLine(text: string, count: number): number {
  let end = 0;
  for (let line = 0; line < count; line += 1) {
    end = text.indexOf("\n", end) + 1;
    if (end === 0) return -1;
  }
  return end;
}

export const jobsCommand: Command = {
  name: "jobs",
  usage: "[--active]",
  summary: "Lists jobs, the newest first.",
  flags: { active: { help: "only those that have not ended" }, ...JSON_FLAG, ...SERVER_FLAG },
  positionals: [0, 0],
  async run(args) {
    const path = args.has("active") ? "/tasks" : "/jobs";
    const { jobs } = await Client.from(args).json<{ jobs: JobJson[] }>(path);
    if (args.has("json")) process.stdout.write(`${JSON.stringify(jobs)}\n`);
    else {
      const rows = jobs.map((job) => [
        job.id,
        job.state,
        `${job.map.done}/${job.map.total}`,
        `${job.reduce.done}/${job.reduce.total}`,
        job.submitted_at,
        printable(job.name || job.mapper),
      ]);
      const head = ["JOB", "STATE", "MAP", "REDUCE", "SUBMITTED", "NAME"];
      process.stdout.write(`${table(head, rows)}\n`);
    }
    return 0;
  },
};

interface TaskJson {
  id: string;
  state: string;
  failures: number;
  last_error: string;
  attempts: { id: string; worker: string; state: string }[];
}

export const statusCommand: Command = {
  name: "status",
  usage: "JOB [--tasks]",
  summary: "Shows a job, and with --tasks each of its tasks.",
  flags: { tasks: { help: "its tasks too" }, ...JSON_FLAG, ...SERVER_FLAG },
  positionals: [1, 1],
  async run(args) {
    const client = Client.from(args);
    const id = encodeURIComponent(args.positionals[0] ?? "");
    const job = await client.json<JobJson>(`/jobs/${id}`);
    const tasks = args.has("tasks")
      ? (await client.json<{ tasks: TaskJson[] }>(`/jobs/${id}/tasks`)).tasks
      : undefined;
    if (args.has("json")) {
      process.stdout.write(`${JSON.stringify(tasks === undefined ? job : { ...job, tasks })}\n`);
      return 0;
    }
    process.stdout.write(`${describe(job)}\n`);
    if (tasks === undefined) return 0;
    const rows = tasks.map((task) => [
      task.id,
      task.state,
      String(task.failures),
      task.attempts
        .map((attempt) => `${attempt.id} ${attempt.state} on ${attempt.worker}`)
        .join(", "),
      printable(task.last_error),
    ]);
    const head = ["TASK", "STATE", "FAILURES", "ATTEMPTS", "LAST ERROR"];
    process.stdout.write(`\n${table(head, rows)}\n`);
    return 0;
  },
};

function describe(job: JobJson): string {
  const rows = [
    ["job", job.id],
    ["state", job.state],
    ["name", printable(job.name)],
    ["scripts", `${job.mapper} | ${job.reducer}`],
    ["data", job.data],
    ["map", `${job.map.done}/${job.map.total}, ${bytes(job.map.bytes_done)}`],
    ["reduce", `${job.reduce.done}/${job.reduce.total}`],
    ["attempts", `${job.attempts.failed} failed, ${job.attempts.lost} lost`],
    ...(job.bad_records > 0
      ? [["set aside", `${job.bad_records} records, in ${job.output}/_bad/`]]
      : []),
    ["output", job.output],
    ["submitted", job.submitted_at],
    ["finished", job.finished_at ?? ""],
    ...Object.entries(job.counters).map(([name, value]) => [printable(name), String(value)]),
  ];
  const text = rows
    .filter(([, value]) => value !== "")
    .map(([name = "", value]) => `${name.padEnd(10)} ${value}`)
    .join("\n");
  return job.error === undefined ? text : `${text}\n${endOf(job)}`;
}

export const watchCommand: Command = {
  name: "watch",
  usage: "JOB",
  summary: "Follows a job to its end; the exit code is the job's.",
  flags: {
    show: { value: "N", help: "lines of the result to print (default 10; 0: none)" },
    ...JSON_FLAG,
    ...SERVER_FLAG,
  },
  positionals: [1, 1],
  run(args) {
    const client = Client.from(args);
    return follow(client, args, (signal) => client.watch(args.positionals[0] ?? "", signal));
  },
};

export const cancelCommand: Command = {
  name: "cancel",
  usage: "JOB",
  summary: "Cancels a job: its scripts are killed, no part of its output becomes visible.",
  flags: { ...JSON_FLAG, ...SERVER_FLAG },
  positionals: [1, 1],
  async run(args) {
    const path = `/jobs/${encodeURIComponent(args.positionals[0] ?? "")}`;
    const job = await Client.from(args).json<JobJson>(path, { method: "DELETE" });
    const line = args.has("json") ? JSON.stringify(job) : `job ${job.id} ${job.state}`;
    process.stdout.write(`${line}\n`);
    return isFinal(job.state) ? 0 : 1;
  },
};

export const workersCommand: Command = {
  name: "workers",
  usage: "",
  summary: "Lists the workers and what they run.",
  flags: { ...JSON_FLAG, ...SERVER_FLAG },
  positionals: [0, 0],
  async run(args) {
    const { workers } = await Client.from(args).json<{
      workers: {
        id: string;
        host: string;
        pid: number;
        slots: number;
        attempts: string[];
        state: string;
      }[];
    }>("/workers");
    if (args.has("json")) process.stdout.write(`${JSON.stringify(workers)}\n`);
    else {
      const rows = workers.map((worker) => [
        worker.id,
        worker.state,
        worker.host,
        String(worker.pid),
        `${worker.attempts.length}/${worker.slots}`,
        worker.attempts.join(" "),
      ]);
      const head = ["WORKER", "STATE", "HOST", "PID", "BUSY", "ATTEMPTS"];
      process.stdout.write(`${table(head, rows)}\n`);
    }
    return 0;
  },
};
