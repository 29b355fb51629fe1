/** The processes that the control plane's bench measures, and what they say of themselves. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import type { LeaderRecord } from "../../internal/model/coordinator.ts";
import { parseJobRequest } from "../../internal/model/job_request.ts";
import { askLeader } from "../../internal/rpc/ask_leader.ts";
import { MasterConnection, RemoteJobApi } from "../../internal/rpc/clients.ts";
import { atExit, until } from "../support/processes.ts";
import type { WorkersOptions, WorkersReport } from "./control_plane_workers.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const SPLIT_BYTES = 64 * 1024 * 1024;

/** A Node process on an IPC channel: it ends when we do. */
class Child {
  readonly process: ChildProcess;
  private readonly exited: Promise<void>;

  constructor(args: string[], env: NodeJS.ProcessEnv, hear: (message: unknown) => void) {
    const stdio = ["ignore", "inherit", "inherit", "ipc"] as const;
    this.process = spawn(process.execPath, args, { stdio: [...stdio], env });
    const forget = atExit(() => this.process.kill("SIGKILL"));
    this.exited = new Promise((resolve) =>
      this.process.once("exit", () => {
        forget();
        resolve();
      }),
    );
    this.process.on("message", hear);
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    this.process.kill(signal);
    await this.exited;
  }
}

export class MasterChild extends Child {
  address = "";
  private remembered: ((memory: NodeJS.MemoryUsage) => void) | undefined;

  constructor(env: Record<string, string>, nodeArgs: string[]) {
    const memory = join(import.meta.dirname, "control_plane_memory.ts");
    const args = ["--expose-gc", "--import", memory, ...nodeArgs, join(ROOT, "cmd/master/main.ts")];
    super(args, { ...process.env, RPC_PORT: "0", ...env }, (message) => this.hear(message));
  }

  private hear(message: unknown): void {
    const said = message as { kind: string; address: string } & NodeJS.MemoryUsage;
    if (said.kind === "listening") this.address = said.address;
    if (said.kind === "memory") this.remembered?.(said);
  }

  /** After a full collection of garbage. */
  async memory(): Promise<NodeJS.MemoryUsage> {
    return new Promise((resolve) => {
      this.remembered = resolve;
      this.process.send("memory");
    });
  }
}

export class WorkersChild extends Child {
  latest: WorkersReport = { atMs: 0, sessions: 0, granted: 0, settled: 0, lost: 0 };

  constructor(options: WorkersOptions, onReport: () => void) {
    const entry = join(import.meta.dirname, "control_plane_workers.ts");
    super([entry, JSON.stringify(options)], process.env, (message) => {
      this.latest = message as WorkersReport;
      onReport();
    });
  }

  begin(): void {
    this.process.send("begin");
  }
}

export async function leaderOf(masters: MasterChild[]): Promise<LeaderRecord> {
  return until("a leader", async () => {
    for (const { address } of masters) {
      if (address === "") continue;
      try {
        const leader = await askLeader(address, undefined);
        if (masters.some((master) => master.pid === leader.pid)) return leader;
      } catch {
        // Not yet.
      }
    }
    return undefined;
  });
}

/** An input of one file that takes no room, of which each map task gets as much as is usual. */
export async function makeInput(storeDir: string, tasks: number): Promise<void> {
  for (const container of ["input", "dfs-scripts"])
    await mkdir(join(storeDir, container), { recursive: true });
  const file = await open(join(storeDir, "input", "part-00000"), "w");
  await file.truncate(tasks * SPLIT_BYTES);
  await file.close();
}

/** As many jobs as the tasks need, all at once; ends when all are planned. */
export async function submitJobs(address: string, tasks: number, perJob: number): Promise<void> {
  const connection = new MasterConnection(address, undefined);
  const api = new RemoteJobApi(connection);
  for (let left = tasks; left > 0; left -= perJob) {
    const request = { mapper: "cat", reducer: "cat", data: "input", r_num: 1 };
    await api.submit(parseJobRequest({ ...request, m_num: Math.min(left, perJob) }), "", "");
  }
  const planned = async () => {
    const { queued = 0, planning = 0 } = (await api.count(undefined)).jobs;
    return queued + planning === 0;
  };
  await until("all plans", planned, 300_000);
  connection.close();
}
