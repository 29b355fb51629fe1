import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { copyFile, mkdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { Client, type JobJson } from "../../../cmd/mr/client.ts";
import { LocalCluster, type Role } from "../../../cmd/mr/local_cluster.ts";
import { atExit, scratchFolder } from "../../support/processes.ts";
import type { Outcome, Scripts } from "./bench_case.ts";
import { linkOrCopy } from "./files.ts";
import { type CpuMs, cpuOf, statOf } from "./processors.ts";
import { SLOTS } from "./settings.ts";

const JOB_MS = 3_600_000;
/** Written to clear_refs, it makes a process's peak what it holds now. */
const RESET_PEAK = "5";

interface Member {
  role: Role | "runner";
  pid: number;
}

/** The worker's child that starts the scripts: what is waited for there has been theirs. */
function runnerOf(worker: number): Member {
  const pid = readdirSync("/proc").find((name) => {
    try {
      return Number(statOf(name)[1]) === worker;
    } catch {
      return false;
    }
  });
  if (pid === undefined) throw new Error("the worker has no runner");
  return { role: "runner", pid: Number(pid) };
}

/** Proxy, master and one worker as processes of their own, over SQLite and a folder. */
export class ClusterUnderTest {
  readonly members: Member[];
  private readonly client: Client;
  private readonly store: string;

  private constructor(url: string, store: string, members: Member[]) {
    this.client = new Client(url);
    this.store = store;
    this.members = members;
  }

  /** Runs a cluster for as long as `use` takes. */
  static async with<T>(use: (cluster: ClusterUnderTest) => Promise<T>): Promise<T> {
    await using folder = await scratchFolder("bench-cluster");
    const local = new LocalCluster({
      dir: folder.path,
      port: 0,
      masters: 1,
      workers: 1,
      slotsPerWorker: SLOTS,
      // What is started again has lost what it was measured by.
      restartsMax: 0,
      say: () => undefined,
    });
    const forget = atExit(() => local.kill());
    try {
      const url = await local.start();
      const own: Member[] = local.processes().map(({ role, pid = 0 }) => ({ role, pid }));
      const runners = own.filter(({ role }) => role === "worker").map(({ pid }) => runnerOf(pid));
      const members = [...own, ...runners];
      const cluster = new ClusterUnderTest(url, join(folder.path, "store"), members);
      return await Promise.race([use(cluster), local.broken]);
    } finally {
      await local.close();
      forget();
    }
  }

  /** Makes files the objects of a container: what is uploaded is not measured. */
  async link(container: string, paths: string[]): Promise<void> {
    const folder = join(this.store, container);
    await mkdir(folder, { recursive: true });
    for (const path of paths) await linkOrCopy(path, join(folder, basename(path)));
  }

  async putScripts(scripts: Scripts): Promise<void> {
    const folder = join(this.store, "dfs-scripts");
    await mkdir(folder, { recursive: true });
    for (const path of Object.values(scripts)) await copyFile(path, join(folder, basename(path)));
  }

  /** From the request to the final report. */
  async run(request: object): Promise<Outcome> {
    const before = this.members.map(({ pid }) => this.begin(pid));
    const startMs = performance.now();
    let job: JobJson | undefined;
    for await (const state of this.client.run(request, AbortSignal.timeout(JOB_MS))) job = state;
    const wallMs = performance.now() - startMs;
    const after = this.members.map(({ pid }) => cpuOf(pid));
    if (job?.state !== "succeeded") throw new Error(`the job did not succeed: ${faultOf(job)}`);
    const spent = (of: keyof CpuMs) =>
      after.reduce((sum, cpu, i) => sum + cpu[of] - (before[i]?.[of] ?? 0), 0);
    const peaks = Object.fromEntries(this.members.map(({ role, pid }) => [role, peakOf(pid)]));
    const folder = join(this.store, job.output);
    const names = readdirSync(folder).filter((name) => name.startsWith("part-"));
    return {
      parts: names.toSorted().map((name) => join(folder, name)),
      sample: {
        wallMs,
        scriptsCpuMs: spent("children"),
        ownCpuMs: spent("own"),
        peakBytes: Math.max(...Object.values(peaks)),
        peaks: peaks as Record<Member["role"], number>,
      },
      discard: () => rm(folder, { recursive: true }),
    };
  }

  private begin(pid: number): CpuMs {
    try {
      writeFileSync(`/proc/${pid}/clear_refs`, RESET_PEAK);
    } catch {
      // Not permitted: then it is the peak of the process's whole life.
    }
    return cpuOf(pid);
  }
}

function peakOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1_024;
}

function faultOf(job: JobJson | undefined): string {
  if (job === undefined) return "no answer";
  const { message = job.state, task = "", log_tail = "" } = job.error ?? {};
  return `${message} ${task} ${log_tail}`;
}
