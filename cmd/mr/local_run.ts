import { constants } from "node:fs";
import { copyFile, link, mkdir, mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { blobNameFault } from "../../internal/model/names.ts";
import { Client, type JobJson } from "./client.ts";
import { downloadOne, filesOf, type LocalFile, printLogs } from "./data_commands.ts";
import { InProcessCluster } from "./in_process_cluster.ts";
import { follow } from "./job_commands.ts";
import { type Args, UsageError } from "./options.ts";
import { replayHere, sayReplayed } from "./replay_command.ts";
import { filterFor, say } from "./terminal.ts";

export const LOCAL_FLAGS = {
  local: { help: "run it here, in this process, over files of this machine" },
  scripts: { value: "DIR", help: "with --local: a folder that stands for dfs-scripts" },
  slots: { value: "N", help: "with --local: tasks at a time (default: the cores)" },
};

const INTERRUPTED = 130;

/** The container that the files of a local job are put into. */
const INPUT = "input";

type RequestFrom = (client: Client, args: Args) => Promise<Record<string, unknown>>;

/** Runs a job in this process: real masters' and workers' code on a folder that is thrown away. */
export async function runHere(args: Args, requestFrom: RequestFrom): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "mr-run-"));
  const cluster = new InProcessCluster(folder, args.whole("slots", 1) ?? availableParallelism());
  // Whoever gives up while the job runs is heard by `follow`; before and after it, here.
  let interrupted = false;
  const interrupt = () => {
    interrupted = true;
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  try {
    await placeInput(join(folder, "store", INPUT), args.positionals);
    const scripts = args.text("scripts");
    if (scripts !== undefined) await placeScripts(join(folder, "store", "dfs-scripts"), scripts);
    const client = new Client(await cluster.start());
    if (interrupted) return INTERRUPTED;
    const request = { data: INPUT, max_attempts: 1, ...(await requestFrom(client, args)) };
    return await runAndShow(client, args, request, folder);
  } finally {
    await cluster.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
    process.removeListener("SIGINT", interrupt);
    process.removeListener("SIGTERM", interrupt);
  }
}

async function runAndShow(
  client: Client,
  args: Args,
  request: object,
  scratch: string,
): Promise<number> {
  let last: JobJson | undefined;
  const quiet: Args = {
    ...args,
    whole: (flag, min) => (flag === "show" ? 0 : args.whole(flag, min)),
  };
  const open = async function* (signal: AbortSignal) {
    for await (const job of client.run(request, signal)) {
      last = job;
      yield job;
    }
  };
  const code = await follow(client, quiet, open, () => "interrupted");
  if (last === undefined) return code;
  if (last.state === "failed") await explain(client, last, join(scratch, "replay"));
  // On a failure the traceback is part of what was said of it.
  if (args.has("json") || last.state === "succeeded")
    await printLogs(client, last.id, process.stderr);
  if (last.state !== "succeeded" || last.phase === "map") return code;
  const output = args.text("output");
  if (output === undefined) await printOutput(client, last.id, args.whole("show", 0));
  else await saveOutput(client, last, output);
  return code;
}

/** Finds the record at which the script failed. */
async function explain(client: Client, job: JobJson, folder: string): Promise<void> {
  const { task = "", attempt = "" } = job.error ?? {};
  if (attempt === "") return;
  // Of a job with steps, the one that was begun last has failed.
  const id = job.steps?.findLast((step) => step.id !== undefined)?.id ?? job.id;
  const quiet = await replayHere(client, `${id}/${task}/${attempt}`, folder, () => undefined);
  if (quiet.failure === undefined) say("run once more on the same input, it succeeds");
  else say(sayReplayed(quiet));
}

async function printOutput(client: Client, id: string, lines: number | undefined): Promise<void> {
  if (lines === 0) return;
  const { body } = await client.fetch(`/jobs/${id}/output`);
  if (body === null) return;
  const bytes = Readable.fromWeb(body as never) as AsyncIterable<Uint8Array>;
  const shown = lines === undefined ? bytes : firstLines(bytes, lines);
  await pipeline(shown, filterFor(process.stdout), process.stdout, { end: false });
}

async function* firstLines(bytes: AsyncIterable<Uint8Array>, lines: number) {
  let left = lines;
  for await (const chunk of bytes) {
    let at = 0;
    while (left > 0 && at >= 0 && at < chunk.length) {
      const end = chunk.indexOf(10, at);
      at = end < 0 ? chunk.length : end + 1;
      if (end >= 0) left -= 1;
    }
    yield chunk.subarray(0, at);
    if (left === 0) return;
  }
}

/** The parts, `_SUCCESS` and what was set aside, as they would lie in the cloud. */
async function saveOutput(client: Client, job: JobJson, folder: string): Promise<void> {
  const slash = job.output.indexOf("/");
  const [container, prefix] = [job.output.slice(0, slash), `${job.output.slice(slash + 1)}/`];
  for (const { name } of await client.list(container, prefix))
    await downloadOne(client, container, name, join(folder, name.slice(prefix.length)));
  say(`the result is in ${folder}`);
}

async function placeInput(container: string, paths: string[]): Promise<void> {
  await mkdir(container, { recursive: true });
  const taken = new Set<string>();
  for (const path of paths)
    for (const file of await filesOf(path)) {
      const fault = taken.has(file.name) ? "two inputs have this name" : blobNameFault(file.name);
      if (fault !== undefined) throw new UsageError(`${file.path}: ${fault}`);
      taken.add(file.name);
      await place(file, container);
    }
}

async function placeScripts(container: string, folder: string): Promise<void> {
  for (const file of await filesOf(folder)) await place(file, container);
}

/** Linked where that can be, so that a large input is not copied; nothing ever writes to it. */
async function place({ path, name }: LocalFile, container: string): Promise<void> {
  const to = join(container, name);
  await mkdir(dirname(to), { recursive: true });
  await link(path, to).catch(() => copyFile(path, to, constants.COPYFILE_FICLONE));
}
