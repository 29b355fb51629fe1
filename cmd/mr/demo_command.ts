import { stat } from "node:fs/promises";
import { join } from "node:path";
import { Client, type JobJson, storagePath } from "./client.ts";
import { filesOf, type LocalFile, uploadAll } from "./data_commands.ts";
import { bytes, table } from "./format.ts";
import { follow } from "./job_commands.ts";
import { CLUSTER_FLAGS, clusterFrom, interruption, untilInterrupted } from "./local_command.ts";
import { type Args, type Command, UsageError } from "./options.ts";
import { say, tell } from "./terminal.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const DIR = ".mr/demo";
const DATA = "demo-text";
const TOP = 15;
/** Of a folder somebody names: what a person would call its text. */
const NOT_HIDDEN = /^(?!(.*\/)?(\.|node_modules\/))/;

/** `npm start`: the words of real text, counted through every part of the system. */
export const demoCommand: Command = {
  name: "demo",
  usage: "[PATH] [--keep] [options]",
  summary:
    "Starts a cluster on this machine, counts the words of PATH (a file or folder; default: the text\n" +
    "and markdown files under node_modules), shows the top words, and stops. --keep: stays up.",
  flags: {
    keep: { help: "stay up afterwards, for jobs of your own" },
    port: { value: "PORT", help: "of the proxy (default: any free one; 8080 with --keep)" },
    ...CLUSTER_FLAGS,
    dir: { value: "DIR", help: `where data, state and logs are kept (default ${DIR})` },
  },
  positionals: [0, 1],
  async run(args) {
    const files = await corpus(args.positionals[0]);
    const port = args.whole("port", 0) ?? (args.has("keep") ? 8080 : 0);
    const cluster = clusterFrom(args, port, DIR);
    say("starting proxy, masters and workers ...");
    return untilInterrupted(cluster, async (url) => {
      tell(`ready ${url}`);
      const code = await countWords(new Client(url), args, files, url);
      if (args.has("keep") && code === 0) {
        say("\nstays up until Ctrl-C");
        await Promise.race([interruption(), cluster.broken]);
      }
      return code;
    });
  },
};

async function corpus(path: string | undefined): Promise<LocalFile[]> {
  if (path !== undefined) {
    const files = await filesOf(path, NOT_HIDDEN);
    if (files.length === 0) throw new UsageError(`${path}: no file in it`);
    return files;
  }
  const modules = join(ROOT, "node_modules");
  if (!(await stat(modules).catch(() => undefined))?.isDirectory())
    throw new UsageError("node_modules is missing: run npm ci, or name a file or folder");
  return filesOf(modules, /\.(md|markdown|txt)$/i);
}

async function countWords(
  client: Client,
  args: Args,
  files: LocalFile[],
  url: string,
): Promise<number> {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  say(
    `uploading ${files.length} files, ${bytes(size)}, to ${DATA}, and the scripts to dfs-scripts`,
  );
  await client.fetch(`/storage/${DATA}`, { method: "PUT" });
  for (const { name } of await client.list(DATA, ""))
    await client.fetch(storagePath(DATA, name), { method: "DELETE" });
  await uploadAll(client, files, { container: DATA, prefix: "" });
  for (const script of ["mapper.py", "reducer.py"]) {
    const path = join(ROOT, "examples", "py_scripts", "word_count", script);
    await client.upload(path, "dfs-scripts", `word_count/${script}`);
  }
  const request = {
    mapper: "word_count/mapper.py",
    reducer: "word_count/reducer.py",
    data: DATA,
    r_num: 4,
    name: "word count",
  };
  let last: JobJson | undefined;
  const quiet = { ...args, whole: () => 0 };
  const code = await follow(client, quiet, async function* (signal) {
    for await (const job of client.run(request, signal)) {
      last = job;
      yield job;
    }
  });
  if (code === 0 && last !== undefined) await showTop(client, last, args, url, request);
  return code;
}

async function showTop(client: Client, job: JobJson, args: Args, url: string, request: object) {
  const text = await (await client.fetch(`/jobs/${job.id}/output`)).text();
  const counts = text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split("\t") as [string, string])
    .toSorted((a, b) => Number(b[1]) - Number(a[1]));
  const rows = counts.slice(0, TOP).map(([word, count]) => [word, count]);
  tell(`\n${counts.length} words; the most frequent:\n\n${table(["WORD", "COUNT"], rows)}`);
  const dir = args.text("dir") ?? DIR;
  const place = args.text("blob") === undefined ? ` (${join(dir, "store", job.output)})` : "";
  tell(`\noutput: ${job.output}${place}`);
  const here = args.has("keep") ? url : "http://127.0.0.1:8080";
  const start = args.has("keep") ? "" : `npm run mr -- local --dir '${dir}' &\n  `;
  const body = JSON.stringify(request);
  tell(`\nthe next job:\n  ${start}curl -N -X POST ${here}/request -d '${body}'`);
}
