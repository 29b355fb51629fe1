import { createWriteStream } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, relative, sep } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { isJobId } from "../../internal/model/ids.ts";
import {
  blobNameFault,
  joinName,
  type Location,
  parseLocation,
} from "../../internal/model/names.ts";
import { Client, type JobJson, storagePath } from "./client.ts";
import { bytes } from "./format.ts";
import { type Command, JSON_FLAG, SERVER_FLAG, UsageError } from "./options.ts";
import { filterFor, say, show } from "./terminal.ts";

const AT_A_TIME = 8;

export const uploadCommand: Command = {
  name: "upload",
  usage: "PATH... CONTAINER[/PREFIX]",
  summary: "Uploads files, and folders with all that is in them.",
  flags: { ...JSON_FLAG, ...SERVER_FLAG },
  positionals: [2, 10_000],
  async run(args) {
    const client = Client.from(args);
    const target = locationArg(args.positionals.at(-1) ?? "");
    const files = (
      await Promise.all(args.positionals.slice(0, -1).map((path) => filesOf(path)))
    ).flat();
    const summary = await uploadAll(client, files, target);
    process.stdout.write(
      args.has("json")
        ? `${JSON.stringify(summary)}\n`
        : `${summary.files} files, ${bytes(summary.bytes)} to ${args.positionals.at(-1)}\n`,
    );
    return 0;
  },
};

export interface LocalFile {
  path: string;
  /** Its name below the folder it was found in, with slashes. */
  name: string;
  size: number;
}

/** A local cluster's own folder: what it holds changes while it is read. */
const OWN_FOLDER = /(^|\/)\.mr\//;

/** A file, or all files of a folder by their names below it; links are not followed. */
export async function filesOf(path: string, wanted = /(?:)/): Promise<LocalFile[]> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) throw new UsageError(`${path}: no such file or folder`);
  if (found.isFile()) return [{ path, name: basename(path), size: found.size }];
  if (!found.isDirectory()) throw new UsageError(`${path}: neither a file nor a folder`);
  const files: LocalFile[] = [];
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    const full = join(entry.parentPath, entry.name);
    const name = relative(path, full).split(sep).join("/");
    if (!entry.isFile() || !wanted.test(name) || OWN_FOLDER.test(name)) continue;
    files.push({ path: full, name, size: (await stat(full)).size });
  }
  return files.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/** Uploads a few at a time; on a terminal says how far it is. */
export async function uploadAll(client: Client, files: LocalFile[], target: Location) {
  for (const file of files) {
    const fault = blobNameFault(joinName(target.prefix, file.name));
    if (fault !== undefined) throw new UsageError(`${file.path}: ${fault}`);
  }
  let [next, done, sent] = [0, 0, 0];
  const lane = async () => {
    while (next < files.length) {
      const file = files[next++] as LocalFile;
      await client.upload(file.path, target.container, joinName(target.prefix, file.name));
      done += 1;
      sent += file.size;
      if (process.stderr.isTTY)
        process.stderr.write(`\r\u001b[2Kuploading ${done}/${files.length}  ${bytes(sent)}`);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, lane));
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[2K");
  return { files: files.length, bytes: sent };
}

export const downloadCommand: Command = {
  name: "download",
  usage: "JOB|CONTAINER[/PREFIX] FOLDER",
  summary: "Downloads a job's parts, or all blobs of a container or prefix.",
  flags: { ...JSON_FLAG, ...SERVER_FLAG },
  positionals: [2, 2],
  async run(args) {
    const client = Client.from(args);
    const [source = "", folder = ""] = args.positionals;
    const place = locationArg(isJobId(source) ? (await finished(client, source)).output : source);
    const cut = place.prefix === "" ? 0 : place.prefix.replace(/[^/]*$/, "").length;
    const objects = await client.list(place.container, place.prefix);
    if (objects.length === 0) throw new UsageError(`${source}: nothing there`);
    let total = 0;
    for (const { name, size } of objects) {
      // The server is not trusted with our file names.
      if (blobNameFault(name) !== undefined) throw new UsageError(`a bad name: ${name}`);
      const local = isJobId(source) ? basename(name) : name.slice(cut);
      await downloadOne(client, place.container, name, join(folder, local));
      total += size;
    }
    const summary = { files: objects.length, bytes: total };
    process.stdout.write(
      args.has("json")
        ? `${JSON.stringify(summary)}\n`
        : `${summary.files} files, ${bytes(total)} to ${folder}\n`,
    );
    return 0;
  },
};

/** Under another name until it is whole. */
export async function downloadOne(client: Client, container: string, name: string, path: string) {
  await mkdir(dirname(path), { recursive: true });
  const partial = `${path}.partial`;
  try {
    const response = await client.fetch(storagePath(container, name));
    const body = response.body ?? new Blob([]).stream();
    await pipeline(Readable.fromWeb(body as never), createWriteStream(partial));
    await rename(partial, path);
  } finally {
    await rm(partial, { force: true });
  }
}

export const catCommand: Command = {
  name: "cat",
  usage: "JOB|CONTAINER/NAME",
  summary: "Prints a job's result, its parts in order, or one blob.",
  flags: { ...SERVER_FLAG },
  positionals: [1, 1],
  async run(args) {
    const client = Client.from(args);
    const [what = ""] = args.positionals;
    const place = isJobId(what) ? undefined : locationArg(what);
    const path =
      place === undefined ? `/jobs/${what}/output` : storagePath(place.container, place.prefix);
    const response = await client.fetch(path);
    if (response.body === null) return 0;
    const body = Readable.fromWeb(response.body as never);
    await pipeline(body, filterFor(process.stdout), process.stdout, { end: false });
    return 0;
  },
};

export const logsCommand: Command = {
  name: "logs",
  usage: "JOB [TASK [ATTEMPT]]",
  summary: "Prints what the scripts of a job wrote to stderr.",
  flags: { ...SERVER_FLAG },
  positionals: [1, 3],
  async run(args) {
    const client = Client.from(args);
    const [job = "", task = "", attempt = ""] = args.positionals;
    const count = await printLogs(client, job, process.stdout, task, attempt);
    if (count === 0) say("no logs: nothing was written to stderr");
    return 0;
  },
};

/** @param ofTask, @param ofAttempt those only; "": of all. @returns how many there were. */
export async function printLogs(
  client: Client,
  job: string,
  out: NodeJS.WritableStream,
  ofTask = "",
  ofAttempt = "",
) {
  type Log = { job: string; task: string; attempt: string };
  const { logs } = await client.json<{ logs: Log[] }>(`/jobs/${encodeURIComponent(job)}/logs`);
  const wanted = logs.filter(
    ({ task, attempt }) => task.startsWith(ofTask) && attempt.startsWith(ofAttempt),
  );
  for (const { job: step, task, attempt } of wanted) {
    const path = `/jobs/${step}/tasks/${task}/attempts/${attempt}/log`;
    const of = step === job ? "" : `${step}/`;
    show(out, `== ${of}${task}/${attempt} ==\n${await (await client.fetch(path)).text()}`);
  }
  return wanted.length;
}

async function finished(client: Client, id: string): Promise<JobJson> {
  const job = await client.json<JobJson>(`/jobs/${id}`);
  if (job.state !== "succeeded")
    throw new UsageError(`job ${id} is ${job.state}; there is no result to download`);
  return job;
}

function locationArg(text: string): Location {
  const place = parseLocation(text);
  if (typeof place === "string") throw new UsageError(`${text}: ${place}`);
  return place;
}
