import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { masterConfig, proxyConfig, workerConfig } from "../common/config.ts";
import type { ServerProcess } from "../common/run_process.ts";
import { MasterProcess } from "../master/master_process.ts";
import { ProxyProcess } from "../proxy/proxy_process.ts";
import { WorkerProcess } from "../worker/worker_process.ts";

const READY_MS = 30_000;

/** What an operator sets for scripts holds here too; where a cluster keeps its data does not. */
function scriptSettings(): Record<string, string | undefined> {
  const names = Object.keys(process.env).filter((name) => /^MR_(SORT|LINE|SCRIPT|PIP)/.test(name));
  return Object.fromEntries(names.map((name) => [name, process.env[name]]));
}

/**
 * Proxy, master and worker in this one process: the code that runs on Kubernetes, for
 * one job over a folder. Scripts still run as processes of their own.
 */
export class InProcessCluster {
  private readonly folder: string;
  private readonly slots: number;
  private readonly servers: ServerProcess[] = [];

  constructor(folder: string, slots: number) {
    this.folder = folder;
    this.slots = slots;
  }

  /** Resolves to the proxy's URL when jobs can be taken. */
  async start(): Promise<string> {
    const common = {
      MR_SQLITE_FILE: join(this.folder, "state.db"),
      MR_STORE_DIR: join(this.folder, "store"),
      MR_LOG_LEVEL: process.env.MR_LOG_LEVEL ?? "silent",
    };
    const master = await this.open(
      await MasterProcess.open(
        masterConfig({ ...common, RPC_PORT: "0", MR_NETWORK_JOBS: "allow" }),
      ),
    );
    const proxy = await this.open(
      await ProxyProcess.open(proxyConfig({ ...common, HTTP_PORT: "0" })),
    );
    const worker = {
      ...scriptSettings(),
      ...common,
      RPC_ADDRESS: master,
      MR_SLOTS: String(this.slots),
      MR_WORKER_NAME: "here",
      MR_SCRATCH_DIR: join(this.folder, "scratch"),
    };
    await this.open(await WorkerProcess.open(workerConfig(worker)));
    const url = `http://${proxy}`;
    await this.ready(url);
    return url;
  }

  private async open(server: ServerProcess): Promise<string> {
    this.servers.push(server);
    return (await server.start()).address;
  }

  private async ready(url: string): Promise<void> {
    const untilMs = performance.now() + READY_MS;
    while (performance.now() < untilMs) {
      const response = await fetch(`${url}/workers`);
      const { workers } = (await response.json()) as { workers?: { state: string }[] };
      if (workers?.some(({ state }) => state === "connected")) return;
      await delay(20);
    }
    throw new Error("the job cannot be run here: no worker came up");
  }

  /** The worker first: what it runs ends with it. */
  async close(): Promise<void> {
    for (const server of this.servers.toReversed()) await server.close();
  }
}
