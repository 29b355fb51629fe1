import { createReadStream, readdirSync, readlinkSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { Client, type JobJson, storagePath } from "../../cmd/mr/client.ts";
import { LocalCluster, type Role } from "../../cmd/mr/local_cluster.ts";
import { atExit, scratchFolder } from "./processes.ts";

export interface TestClusterOptions {
  masters?: number;
  workers?: number;
  slots?: number;
  etcd?: string;
  blob?: string;
  /** Settings of every process. */
  env?: Record<string, string>;
  /** Settings of single ones. */
  envOf?: (role: Role, number: number) => Record<string, string>;
}

/** A cluster of real processes on loopback; everything of it is gone at the end of its scope. */
export interface TestCluster extends AsyncDisposable {
  url: string;
  dir: string;
  client: Client;
}

export async function useCluster(options: TestClusterOptions = {}): Promise<TestCluster> {
  const folder = await scratchFolder("cluster");
  const cluster = new LocalCluster({
    dir: folder.path,
    port: 0,
    masters: options.masters ?? 1,
    workers: options.workers ?? 2,
    slotsPerWorker: options.slots ?? 2,
    etcd: options.etcd,
    blob: options.blob,
    envOf: (role, number) => ({ ...options.env, ...options.envOf?.(role, number) }),
    say: () => undefined,
  });
  const closed = atExit(() => cluster.kill());
  const stop = async () => {
    await cluster.close();
    closed();
    await folder[Symbol.asyncDispose]();
  };
  try {
    const url = await cluster.start();
    const client = new Client(url);
    return { url, dir: folder.path, client, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

export async function putText(
  client: Client,
  container: string,
  name: string,
  body: string | Uint8Array,
) {
  await client.fetch(storagePath(container, name), {
    method: "PUT",
    body: body as RequestInit["body"],
  });
}

export async function putFile(client: Client, container: string, name: string, path: string) {
  await client.fetch(storagePath(container, name), {
    method: "PUT",
    body: Readable.toWeb(createReadStream(path)) as RequestInit["body"],
    duplex: "half",
  } as RequestInit);
}

/** Uploads the example scripts of a folder as FOLDER/mapper.py and FOLDER/reducer.py. */
export async function putExample(client: Client, folder: string) {
  const root = join(import.meta.dirname, "..", "..", "examples", "py_scripts", folder);
  for (const name of await readdir(root))
    if (name.endsWith(".py"))
      await putFile(client, "dfs-scripts", `${folder}/${name}`, join(root, name));
}

/** Submits, and returns the job in its final state. */
export async function runJob(client: Client, request: object): Promise<JobJson> {
  let last: JobJson | undefined;
  for await (const job of client.run(request, AbortSignal.timeout(120_000))) last = job;
  if (last === undefined) throw new Error("no answer");
  return last;
}

export async function outputOf(client: Client, id: string): Promise<Buffer> {
  const response = await client.fetch(`/jobs/${id}/output`);
  return Buffer.from(await response.arrayBuffer());
}

/** Processes whose working directory lies below a folder, and has this in its name. */
export function processesIn(folder: string, part = ""): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const path = readlinkSync(`/proc/${pid}/cwd`);
        return path.startsWith(folder) && path.includes(part);
      } catch {
        return false;
      }
    })
    .map(Number);
}
