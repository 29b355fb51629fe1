import { spawnSync } from "node:child_process";
import { linkSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { putFile, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { type Measured, measureCluster, measureShell, plainEnv, processesOf } from "./measure.ts";

/** One way of doing what a case is about. */
export interface Contestant {
  name: string;
  run: () => Promise<Measured>;
}

/** A shell script; its result, if it makes one, is what it leaves in `result*`. */
export function shell(
  name: string,
  script: string,
  folder: string,
  digest?: (files: string[]) => string,
): Contestant {
  return {
    name,
    run: async () => {
      spawnSync("bash", ["-c", "rm -rf result* work; mkdir work"], { cwd: folder });
      const measured = await measureShell(script, folder);
      const results = readdirSync(folder).filter((file) => file.startsWith("result"));
      const files = results.map((file) => join(folder, file));
      return { ...measured, digest: digest?.(files) };
    },
  };
}

/** The digest of all lines of some files, sorted. @param sorted each file is. */
export function digestOfLines(files: string[], sorted: boolean): string {
  const { stdout, status } = spawnSync(
    "bash",
    ["-c", `sort ${sorted ? "-m" : "-S1G --parallel=2"} "$@" | md5sum`, "-", ...files],
    { env: plainEnv(), encoding: "utf8" },
  );
  if (status !== 0) throw new Error("the digest could not be made");
  return stdout.split(" ")[0] ?? "";
}

/** Our cluster: one worker with two slots on the embedded backends, through its HTTP interface. */
export class Framework implements AsyncDisposable {
  private readonly cluster: TestCluster;
  private readonly pids: string[];

  private constructor(cluster: TestCluster) {
    this.cluster = cluster;
    this.pids = processesOf(cluster.dir);
  }

  static async start(): Promise<Framework> {
    return new Framework(await useCluster({ workers: 1, slots: 2, env: { PYTHONUNBUFFERED: "" } }));
  }

  async putScript(name: string, path: string): Promise<void> {
    await putFile(this.cluster.client, "dfs-scripts", name, path);
  }

  /** Makes a container of the files of a folder, without copying them. */
  addData(container: string, folder: string): void {
    const into = join(this.cluster.dir, "store", container);
    mkdirSync(into, { recursive: true });
    for (const name of readdirSync(folder)) linkSync(join(folder, name), join(into, name));
  }

  /** A job as a contestant; only the way from the request to the report is measured. */
  job(name: string, request: object, digest?: (files: string[]) => string): Contestant {
    return {
      name,
      run: async () => {
        const output = `bench-result/${Date.now().toString(36)}`;
        const measured = await measureCluster(this.pids, async () => {
          const job = await runJob(this.cluster.client, { ...request, output });
          if (job.state !== "succeeded")
            throw new Error(`${name}: ${job.error?.message ?? job.state}`);
        });
        const folder = join(this.cluster.dir, "store", output);
        const parts = readdirSync(folder).filter((file) => file.startsWith("part-"));
        const result = digest?.(parts.map((part) => join(folder, part)));
        spawnSync("rm", ["-rf", folder]);
        return { ...measured, digest: result };
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
  }
}
