import { Client, isFinal, type JobJson, type StepJson } from "./client.ts";
import { bytes, duration, table } from "./format.ts";
import { type Args, type Command, JSON_FLAG, SERVER_FLAG } from "./options.ts";
import { ProgressView } from "./progress.ts";
import { say, show, tell, tellJson } from "./terminal.ts";

const EXIT: Record<string, number> = { succeeded: 0, failed: 1, cancelled: 3 };
const INTERRUPTED = 130;

/**
 * Shows a job's progress to its end, then its result.
 * @param left what to say to somebody who does not wait.
 */
export async function follow(
  client: Client,
  args: Args,
  open: (signal: AbortSignal) => AsyncIterable<JobJson>,
  left = (id: string) => `the job goes on: mr watch ${id}, or mr cancel ${id}`,
): Promise<number> {
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  process.once("SIGINT", interrupt);
  process.once("SIGTERM", interrupt);
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
    say(`\n${left(id)}`);
    return INTERRUPTED;
  } finally {
    process.removeListener("SIGINT", interrupt);
    process.removeListener("SIGTERM", interrupt);
  }
  if (last === undefined) return 1;
  if (args.has("json")) tellJson(last);
  else await showEnd(client, last, args.whole("show", 0) ?? 10);
  return EXIT[last.state] ?? 1;
}

async function showEnd(client: Client, job: JobJson, lines: number): Promise<void> {
  say(endOf(job));
  if (job.state !== "succeeded" || job.phase === "map" || lines === 0) return;
  const shown = await firstLines(client, job.id, lines);
  show(process.stdout, shown.text);
  if (shown.more) say(`... all of it: mr cat ${job.id}`);
}

export function endOf(job: JobJson): string {
  const started = Date.parse(job.started_at ?? job.submitted_at);
  const tookMs = Date.parse(job.finished_at ?? job.submitted_at) - started;
  const { error } = job;
  if (error !== undefined) {
    const where = error.task === "" ? "" : ` in ${error.task}, attempt ${error.attempt}`;
    const tail = error.log_tail === "" ? "" : `\n${error.log_tail.trimEnd()}`;
    return `job ${job.id} ${job.state} (${error.class}${where}): ${error.message}${tail}`;
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
      if (end >= 0 && end < text.length) return { text: text.slice(0, end), more: true };
      if (text.length >= SHOWN_CHARS_MAX) return { text: `${text}\n`, more: true };
    }
  } finally {
    stop.abort();
  }
  return { text, more: false };
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
    const page = await Client.from(args).json<{ jobs: JobJson[]; next?: string }>(path);
    const { jobs, next } = page;
    if (args.has("json")) tellJson(jobs);
    else {
      const rows = jobs.map((job) => [
        job.id,
        job.state,
        `${job.map.done}/${job.map.total}`,
        `${job.reduce.done}/${job.reduce.total}`,
        job.submitted_at,
        job.name || scriptsOf(job),
      ]);
      const head = ["JOB", "STATE", "MAP", "REDUCE", "SUBMITTED", "NAME"];
      tell(table(head, rows));
      if (next !== undefined) say(`... and more: GET ${path}?after=${next}`);
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
      tellJson(tasks === undefined ? job : { ...job, tasks });
      return 0;
    }
    tell(describe(job));
    if (tasks === undefined) return 0;
    const rows = tasks.map((task) => [
      task.id,
      task.state,
      String(task.failures),
      task.attempts
        .map((attempt) => `${attempt.id} ${attempt.state} on ${attempt.worker}`)
        .join(", "),
      task.last_error,
    ]);
    const head = ["TASK", "STATE", "FAILURES", "ATTEMPTS", "LAST ERROR"];
    tell(`\n${table(head, rows)}`);
    return 0;
  },
};

function scriptsOf({ mapper, combiner, reducer, steps }: JobJson): string {
  if (steps !== undefined) return `${steps.length} steps`;
  return [mapper, combiner, reducer].filter(Boolean).join(" | ");
}

function describeStep({ id, state, mapper, reducer, map, reduce }: StepJson): string {
  const scripts = [mapper, reducer].filter(Boolean).join(" | ");
  if (map === undefined || reduce === undefined) return `${state}: ${scripts}`;
  const tasks = `map ${map.done}/${map.total}, reduce ${reduce.done}/${reduce.total}`;
  return `${state}, ${tasks}: ${scripts} (${id})`;
}

function describe(job: JobJson): string {
  const rows = [
    ["job", job.id],
    ["state", job.state],
    ["name", job.name],
    ["scripts", scriptsOf(job)],
    ["data", [job.data].flat().join(" ")],
    ["map", `${job.map.done}/${job.map.total}, ${bytes(job.map.bytes_done)}`],
    ["reduce", `${job.reduce.done}/${job.reduce.total}`],
    ["attempts", `${job.attempts.failed} failed, ${job.attempts.lost} lost`],
    ...(job.bad_records > 0
      ? [["set aside", `${job.bad_records} records, in ${job.output}/_bad/`]]
      : []),
    ...(job.steps ?? []).map((step, i) => [`step ${i + 1}`, describeStep(step)]),
    ["output", job.output],
    ["submitted", job.submitted_at],
    ["finished", job.finished_at ?? ""],
    ...Object.entries(job.counters).map(([name, value]) => [name, String(value)]),
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
    tell(line);
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
    if (args.has("json")) tellJson(workers);
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
      tell(table(head, rows));
    }
    return 0;
  },
};
