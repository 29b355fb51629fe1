import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { type JobJson, ServerError, storagePath } from "../../cmd/mr/client.ts";
import { filesOf } from "../../cmd/mr/data_commands.ts";
import { outputOf, putText, runJob, useCluster } from "../support/cluster.ts";
import { scratchFolder } from "../support/processes.ts";
import type { ContractCase } from "./case.ts";

export interface Outcome {
  error: string | undefined;
  /** Of the result's folder, by name and in order. */
  files: Map<string, Buffer>;
  counters: Record<string, number>;
  log: string;
}

export interface Runner extends AsyncDisposable {
  run(one: ContractCase): Promise<Outcome>;
}

interface OpenRunner {
  (): Promise<Runner>;
  title: string;
}

let serial = 0;

const SETTINGS = { MR_LINE_MB: "1" };

/** Two workers, the embedded backends, requests over HTTP. */
export const clusterRunner: OpenRunner = async () => {
  const cluster = await useCluster({ workers: 2, slots: 2, env: SETTINGS });
  const { client } = cluster;
  const run = async (one: ContractCase): Promise<Outcome> => {
    // Cases run at the same time: each has containers and scripts of its own names.
    serial += 1;
    const number = serial;
    const container = `input-${number}`;
    const own = (name: string) => `case-${number}/${name}`;
    await client.fetch(`/storage/${container}`, { method: "PUT" });
    for (const [name, body] of Object.entries(one.input))
      await putText(client, container, name, body);
    for (const [name, body] of Object.entries(one.scripts ?? {}))
      await putText(client, "dfs-scripts", own(name), body);
    const request = renamed(one, one.request, own, container);
    if (one.before !== undefined) {
      const { state, error } = await runJob(client, renamed(one, one.before, own, container));
      assert.equal(state, "succeeded", error?.message);
    }
    let job: JobJson;
    try {
      job = await runJob(client, request);
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      return { error: restored(error.message, container), files: new Map(), counters: {}, log: "" };
    }
    const objects = await client.list("dfs-logs", `${job.id}/`).catch(() => []);
    const logs = objects.filter(({ name }) => name.endsWith(".log"));
    const texts = await Promise.all(
      logs.map(async ({ name }) => (await client.fetch(storagePath("dfs-logs", name))).text()),
    );
    const files = new Map<string, Buffer>();
    const slash = job.output.indexOf("/");
    const prefix = `${job.output.slice(slash + 1)}/`;
    if (job.state === "succeeded") {
      for (const { name } of await client.list(job.output.slice(0, slash), prefix)) {
        const response = await client.fetch(storagePath(job.output.slice(0, slash), name));
        const bytes = Buffer.from(await response.arrayBuffer());
        files.set(
          name.slice(prefix.length),
          Buffer.from(restored(bytes.toString("latin1"), container), "latin1"),
        );
      }
      await outputOf(client, job.id);
    }
    return { error: job.error?.message, files, counters: job.counters, log: texts.join("") };
  };
  return { run, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() };
};
clusterRunner.title = "by a cluster";

/** What the case calls `input`, and its scripts, under names of this run. */
function renamed(
  one: ContractCase,
  request: Record<string, unknown>,
  own: (name: string) => string,
  container: string,
): object {
  const scripts = Object.keys(one.scripts ?? {});
  const command = (value: unknown) => {
    const [program = "", ...rest] = String(value).split(" ");
    return scripts.includes(program) ? [own(program), ...rest].join(" ") : value;
  };
  const step = (given: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(given).map(([field, value]) => {
        if (["mapper", "reducer", "combiner"].includes(field)) return [field, command(value)];
        if (field === "files") return [field, (value as string[]).map(own)];
        if (field === "steps") return [field, (value as Record<string, unknown>[]).map(step)];
        return [field, value];
      }),
    );
  const data = [request.data ?? "input"].flat() as string[];
  const places = data.map((place) => place.replace(/^input/, container));
  return { ...step(request), data: places.length === 1 ? places[0] : places };
}

function restored(said: string, container: string): string {
  return said.replaceAll(container, "input");
}

/** `mr run --local`, a process for each case. */
export const localRunner: OpenRunner = async () => {
  const run = async (one: ContractCase): Promise<Outcome> => {
    await using folder = await scratchFolder("contract");
    const at = (...names: string[]) => join(folder.path, ...names);
    await mkdir(at("input"));
    await mkdir(at("scripts"));
    const write = async (path: string, body: string | Uint8Array) => {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, body);
    };
    for (const [name, body] of Object.entries(one.input)) await write(at("input", name), body);
    for (const [name, body] of Object.entries(one.scripts ?? {}))
      await write(at("scripts", name), body);
    await writeFile(at("request.json"), JSON.stringify(one.request));
    const main = join(import.meta.dirname, "..", "..", "cmd", "mr", "main.ts");
    const flags = [
      "--scripts",
      at("scripts"),
      "--request",
      at("request.json"),
      "--output",
      at("result"),
    ];
    const child = spawn(
      process.execPath,
      [main, "run", "--local", "--json", "--slots", "2", ...flags, at("input")],
      {
        env: { PATH: process.env.PATH, TMPDIR: folder.path, ...SETTINGS },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    const exit = new Promise((resolve) => child.once("close", resolve));
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
    if (!stdout.startsWith("{")) return { error: stderr, files: new Map(), counters: {}, log: "" };
    const job = JSON.parse(stdout) as JobJson;
    const files = new Map<string, Buffer>();
    if (existsSync(at("result")))
      for (const { name } of await filesOf(at("result")))
        files.set(name, await readFile(at("result", name)));
    const log = stderr.replace(/^== \S+ ==\n/gm, "").replace(/^the result is in .*\n/m, "");
    return { error: job.error?.message, files, counters: job.counters, log };
  };
  return { run, [Symbol.asyncDispose]: async () => undefined };
};
localRunner.title = "by `mr run --local`";
