import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { basename } from "node:path";
import { Client, type JobJson } from "./client.ts";
import { follow } from "./job_commands.ts";
import { LOCAL_FLAGS, runHere } from "./local_run.ts";
import { type Args, type Command, JSON_FLAG, pairs, SERVER_FLAG, UsageError } from "./options.ts";
import { tell, tellJson } from "./terminal.ts";

export const runCommand: Command = {
  name: "run",
  usage:
    "--mapper SCRIPT [--reducer SCRIPT] --data CONTAINER[/PREFIX]... [options]\n" +
    "       mr run --local --mapper SCRIPT [--reducer SCRIPT] [options] FILE...",
  summary:
    "Runs a job and waits for its end; the exit code is the job's (0 succeeded, 1 failed, 3 cancelled).\n" +
    "SCRIPT is a blob of dfs-scripts; a path that begins with ./, ../ or / is uploaded there first,\n" +
    "under a name of its content. With --local the job runs here, in this process, over local files:\n" +
    "the same contract without a cluster. The result goes to stdout, all else to stderr.",
  flags: {
    mapper: { value: "SCRIPT", help: "reads lines, prints key TAB value" },
    reducer: { value: "SCRIPT", help: "reads sorted pairs, prints the result" },
    combiner: {
      value: "SCRIPT",
      help: "reduces each map task's output first; or sum, min, max, distinct",
    },
    partitioner: {
      value: "NAME",
      help: "hash (default), KeyFieldBasedPartitioner, or range: sorted parts",
    },
    data: {
      value: "LOCATION",
      multiple: true,
      help: "the input: a container, container/prefix or container/pattern",
    },
    maps: { value: "N", help: "map tasks (default: by the size of the input)" },
    reduces: { value: "N", help: "reduce tasks = parts of the result (default 1; 0: map-only)" },
    phase: { value: "PHASE", help: "only map or only reduce" },
    from: {
      value: "JOB",
      help: "the map phase that a reduce phase reads; or the failed job with steps",
    },
    name: { value: "TEXT", help: "a name for people" },
    output: {
      value: "LOCATION",
      help: "where the parts go (default dfs-dest/JOB); with --local, a folder",
    },
    file: {
      value: "FILE[#LINK]",
      multiple: true,
      help: "a further blob or ./path for the scripts' folder; archives are unpacked there",
    },
    env: { value: "NAME=VALUE", multiple: true, help: "for the scripts' environment" },
    conf: { value: "NAME=VALUE", multiple: true, help: "a job option by Hadoop's name" },
    format: { value: "FORMAT", help: "lines (default) or hadoop: a separator in every line" },
    priority: { value: "N", help: "-100 to 100 (write --priority=-5); the higher goes first" },
    "max-attempts": { value: "N", help: "tries per task (default 4; with --local 1)" },
    "max-bad-records": {
      value: "N",
      help: "input records that may be set aside because the mapper fails on them",
    },
    network: { help: "its scripts may make connections, where the operator permits that" },
    request: {
      value: "FILE",
      help: "the request as JSON, with steps if need be; other flags come before it",
    },
    show: {
      value: "N",
      help: "lines of the result to print (default 10; 0: none; with --local all)",
    },
    detach: { help: "do not wait; print the job's id" },
    ...LOCAL_FLAGS,
    ...JSON_FLAG,
    ...SERVER_FLAG,
  },
  positionals: [0, 10_000],
  run: runJob,
};

async function runJob(args: Args): Promise<number> {
  if (args.has("local")) return runHere(args, requestFrom);
  if (args.positionals.length > 0)
    throw new UsageError(`usage: mr run ${runCommand.usage}\n(files as input need --local)`);
  const client = Client.from(args);
  const request = await requestFrom(client, args);
  if (!args.has("detach")) return follow(client, args, (signal) => client.run(request, signal));
  const job = await client.json<JobJson>("/request", {
    method: "POST",
    headers: { prefer: "respond-async", "content-type": "application/json" },
    body: JSON.stringify(request),
  });
  if (args.has("json")) tellJson(job);
  else tell(job.id);
  return 0;
}

/** The request that the flags describe; scripts given as paths are uploaded. */
async function requestFrom(client: Client, args: Args): Promise<Record<string, unknown>> {
  const path = args.text("request");
  const base = path === undefined ? {} : readRequest(path);
  const needed = path === undefined ? ["mapper", ...(args.has("local") ? [] : ["data"])] : [];
  for (const name of needed)
    if (args.text(name) === undefined) throw new UsageError(`--${name} is missing`);
  const bare = args.has("local") && args.text("scripts") === undefined;
  const place = (script: string | undefined) => placed(client, script, bare);
  const files = await Promise.all(args.list("file").map(place));
  const given: Record<string, unknown> = {
    mapper: await place(args.text("mapper")),
    reducer: await place(args.text("reducer")),
    combiner: await place(args.text("combiner")),
    partitioner: args.text("partitioner"),
    output_format: args.text("format"),
    data: args.list("data").length > 0 ? args.list("data") : undefined,
    m_num: args.whole("maps", 0),
    r_num: args.whole("reduces", 0),
    phase: args.text("phase"),
    from: args.text("from"),
    name: args.text("name"),
    output: args.has("local") ? undefined : args.text("output"),
    files: files.length > 0 ? files : undefined,
    env: args.list("env").length > 0 ? pairs("env", args.list("env")) : undefined,
    conf: args.list("conf").length > 0 ? pairs("conf", args.list("conf")) : undefined,
    priority: args.whole("priority", -100),
    max_attempts: args.whole("max-attempts", 1),
    max_bad_records: args.whole("max-bad-records", 0),
    network: args.has("network") || undefined,
  };
  const chosen = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...base, ...Object.fromEntries(chosen) };
}

function readRequest(path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
    throw new Error("a JSON object is expected");
  } catch (error) {
    throw new UsageError(`--request ${path}: ${(error as Error).message}`);
  }
}

/**
 * Uploads a script given as a path; returns its name in dfs-scripts.
 * @param bare a name without ./ is a file of this folder, if there is one.
 */
async function placed(
  client: Client,
  script: string | undefined,
  bare: boolean,
): Promise<string | undefined> {
  if (script === undefined) return script;
  const [given = "", ...args] = script.split(" ");
  const hash = given.lastIndexOf("#");
  const path = hash < 0 ? given : given.slice(0, hash);
  const isHere = bare && statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  if (!isHere && !/^\.{0,2}\//.test(path)) return script;
  // A program of the workers, such as /bin/cat, is none of our scripts.
  if (path.startsWith("/") && /^\/(usr\/(local\/)?)?s?bin\//.test(path)) return script;
  if (!statSync(path, { throwIfNoEntry: false })?.isFile())
    throw new UsageError(`${path}: no such file (a script's name has no spaces)`);
  // Under a name of its content: two scripts called alike never take each other's place.
  const digest = createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 12);
  const name = `${digest}/${basename(path)}`;
  await client.upload(path, "dfs-scripts", name);
  return [hash < 0 ? name : name + given.slice(hash), ...args].join(" ");
}
