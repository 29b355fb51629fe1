import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { UsageError } from "./options.ts";
import { type ReservedPort, reservePort } from "./reserved_port.ts";

export interface LocalClusterOptions {
  /** Data, state and logs; made if need be, and kept. */
  dir: string;
  /** Of the proxy; 0: any free one. */
  port: number;
  masters: number;
  workers: number;
  slotsPerWorker: number;
  /** The real ones instead of the embedded defaults. */
  etcd?: string;
  blob?: string;
  /** Settings of single processes, over all others. */
  envOf?: (role: Role, number: number) => Record<string, string>;
  /** Options of Node itself, for every process. */
  nodeArgs?: string[];
  /**
   * A process that ends this often within a minute is not started again; default 5, and no limit for
   * a worker that works: what it runs may end it.
   */
  restartsMax?: number;
  /** Says what happens to the processes. */
  say: (line: string) => void;
}

const ENTRY = {
  master: new URL("../master/main.ts", import.meta.url).pathname,
  worker: new URL("../worker/main.ts", import.meta.url).pathname,
  proxy: new URL("../proxy/main.ts", import.meta.url).pathname,
};
export type Role = keyof typeof ENTRY;

const READY_MS = 30_000;
const RESTART_MS = 500;
const RESTART_MS_MAX = 10_000;
const RESTARTS_MAX = 5;
/** A process that does not end in this time is killed. */
const END_MS = 10_000;
const HURRY_MS = 500;

interface Member {
  role: Role;
  name: string;
  number: number;
  env: Record<string, string>;
  child: ChildProcess | undefined;
  address: string;
  starts: number[];
}

/**
 * A whole cluster on this machine: proxy, masters and workers as processes of
 * their own, the very code that runs on Kubernetes. A process that dies is
 * started again. Each has its own process group, so that Ctrl-C reaches only us,
 * and we end them in order; and an IPC channel, so that they end if we vanish.
 */
export class LocalCluster {
  private readonly options: LocalClusterOptions;
  private readonly members: Member[] = [];
  private readonly ports: ReservedPort[] = [];
  private readonly failed = new AbortController();
  private isReady = false;
  private closing = false;
  private locked: string | undefined;

  constructor(options: LocalClusterOptions) {
    this.options = { ...options, dir: resolve(options.dir) };
  }

  /** Resolves to the proxy's URL when jobs can be taken. */
  async start(): Promise<string> {
    const { dir, masters, workers, slotsPerWorker } = this.options;
    this.lock();
    mkdirSync(join(dir, "logs"), { recursive: true });
    await rm(join(dir, "scratch"), { recursive: true, force: true });
    const port = this.options.port || (await this.port());
    const proxy = this.add("proxy", 1, { HTTP_PORT: String(port) });
    await this.listening(proxy);
    for (let i = 1; i <= masters; i += 1)
      this.add("master", i, { RPC_PORT: String(await this.port()) });
    const addresses: string[] = [];
    for (const member of this.members.filter(({ role }) => role === "master"))
      addresses.push(await this.listening(member));
    for (let i = 1; i <= workers; i += 1)
      this.add("worker", i, {
        RPC_ADDRESS: addresses.join(","),
        MR_SLOTS: String(slotsPerWorker),
        MR_WORKER_NAME: `worker-${i}`,
      });
    const url = `http://${proxy.address}`;
    await this.ready(url);
    this.isReady = true;
    return url;
  }

  /** Two clusters in one folder would take each other's state for their own. */
  private lock(): void {
    const path = join(this.options.dir, "lock");
    const isFile = statSync(this.options.dir, { throwIfNoEntry: false })?.isDirectory() === false;
    if (isFile) throw new UsageError(`${this.options.dir} is not a folder`);
    mkdirSync(this.options.dir, { recursive: true });
    if (existsSync(path)) {
      const pid = Number(readFileSync(path, "utf8"));
      if (isAlive(pid))
        throw new UsageError(
          `${this.options.dir} is in use by process ${pid}; give another --dir (if it is not: rm ${path})`,
        );
      rmSync(path);
    }
    writeFileSync(path, String(process.pid), { flag: "wx" });
    this.locked = path;
  }

  /** Where a process is found again after a restart. */
  private async port(): Promise<number> {
    const port = await reservePort();
    this.ports.push(port);
    return port.number;
  }

  private add(role: Role, number: number, env: Record<string, string>): Member {
    const member: Member = {
      role,
      name: `${role}-${number}`,
      number,
      env: { ...env },
      child: undefined,
      address: "",
      starts: [],
    };
    this.members.push(member);
    this.spawn(member);
    return member;
  }

  private spawn(member: Member): void {
    if (member.role === "worker") this.removeScratch(member.name);
    const log = openSync(join(this.options.dir, "logs", `${member.name}.log`), "a");
    const { nodeArgs = [], envOf } = this.options;
    const child = spawn(process.execPath, [...nodeArgs, ENTRY[member.role]], {
      stdio: ["ignore", log, log, "ipc"],
      env: {
        ...process.env,
        ...this.backendEnv(member.role),
        ...member.env,
        ...envOf?.(member.role, member.number),
      },
      detached: true,
    });
    closeSync(log);
    member.child = child;
    member.address = "";
    member.starts.push(performance.now());
    child.on("message", (message: { kind?: string; address?: string }) => {
      if (message.kind === "listening") member.address = message.address ?? "";
    });
    child.on("error", () => undefined);
    child.on("exit", (code, signal) => this.restart(member, child, String(signal ?? code)));
  }

  /** A worker that was killed could not tidy up after itself. */
  private removeScratch(name: string): void {
    const root = join(this.options.dir, "scratch");
    if (!existsSync(root)) return;
    for (const life of readdirSync(root))
      if (life.startsWith(`${name}-`)) rmSync(join(root, life), { recursive: true, force: true });
  }

  /** What a role needs and no more: a worker learns nothing of the coordinator. */
  private backendEnv(role: Role): Record<string, string> {
    const { dir, etcd, blob } = this.options;
    const env: Record<string, string> = {
      // Nothing of ours by chance: what is not set here is not set.
      ETCD_ADDRESS: "",
      BLOB_CONNECTION: blob ?? "",
      AZURE_STORAGE_CONNECTION_STRING: "",
      MR_STORE_DIR: blob === undefined ? join(dir, "store") : "",
    };
    if (role === "worker")
      return {
        ...env,
        ETCD_ROOT_PASSWORD: "",
        MR_SCRATCH_DIR: join(dir, "scratch"),
        MR_PARENT_PID: String(process.pid),
      };
    // Scripts run as whoever started this, who may use the network.
    const served = { ...env, MR_NETWORK_JOBS: "allow" };
    if (etcd === undefined) return { ...served, MR_SQLITE_FILE: join(dir, "state.db") };
    return { ...served, ETCD_ADDRESS: etcd };
  }

  private restart(member: Member, child: ChildProcess, how: string): void {
    if (this.closing || member.child !== child) return;
    const nowMs = performance.now();
    const recent = member.starts.filter((ms) => nowMs - ms < 60_000);
    const neverServed = !this.isReady && member.address === "" && member.starts.length === 1;
    const { restartsMax = RESTARTS_MAX } = this.options;
    const excess = recent.length - restartsMax;
    // Before all are ready, too, a job of an earlier life of this cluster may run.
    const mayBeAJob = member.role === "worker" && (this.isReady || child.signalCode !== null);
    const isFault = !mayBeAJob || this.options.restartsMax !== undefined;
    if (isFault && (excess > 0 || neverServed)) {
      const log = join(this.options.dir, "logs", `${member.name}.log`);
      this.failed.abort(
        new UsageError(`${member.name} ended (${how}): ${lastLine(log)}\nmore in ${log}`),
      );
      return;
    }
    this.options.say(`${member.name} (pid ${child.pid}) ended by ${how}; starting it again`);
    const waitMs = Math.min(RESTART_MS_MAX, RESTART_MS * 2 ** Math.max(0, excess));
    setTimeout(() => {
      if (!this.closing) this.spawn(member);
    }, waitMs);
  }

  private async listening(member: Member): Promise<string> {
    await this.waitFor(`${member.name} to listen`, async () => member.address !== "");
    return member.address;
  }

  private async ready(url: string): Promise<void> {
    await this.waitFor("all workers to connect", async () => {
      const response = await fetch(`${url}/readyz`).catch(() => undefined);
      if (response === undefined || !response.ok) return false;
      const { workers } = (await response.json()) as { workers: number };
      return workers >= this.options.workers;
    });
  }

  private async waitFor(what: string, probe: () => Promise<boolean>): Promise<void> {
    const deadlineMs = performance.now() + READY_MS;
    while (!(await probe())) {
      this.failed.signal.throwIfAborted();
      if (this.closing) throw new UsageError("interrupted");
      if (performance.now() > deadlineMs)
        throw new UsageError(
          `waited ${READY_MS / 1000} s for ${what}; see ${join(this.options.dir, "logs")}`,
        );
      await delay(25);
    }
  }

  /** The processes as they are now; one that is being started again has no pid. */
  processes(): { role: Role; name: string; pid: number | undefined }[] {
    return this.members.map(({ role, name, child }) => {
      const running = child?.exitCode === null && child.signalCode === null;
      return { role, name, pid: running ? child.pid : undefined };
    });
  }

  /** Rejects when a process cannot be kept running. */
  get broken(): Promise<never> {
    return new Promise((_, reject) => {
      this.failed.signal.addEventListener("abort", () => reject(this.failed.signal.reason));
    });
  }

  /** Workers first, so that they can hand back what they run; masters last. */
  async close(): Promise<void> {
    this.closing = true;
    for (const role of ["worker", "proxy", "master"] as const) {
      const members = this.members.filter((member) => member.role === role);
      await Promise.all(members.map(({ child }) => end(child, role === "proxy")));
    }
    for (const port of this.ports.splice(0)) port[Symbol.dispose]();
    if (this.locked === undefined) return;
    await rm(join(this.options.dir, "scratch"), { recursive: true, force: true, maxRetries: 3 });
    await rm(this.locked, { force: true });
  }

  /** Ends all at once. */
  kill(): void {
    this.closing = true;
    for (const { child } of this.members) child?.kill("SIGKILL");
  }
}

function lastLine(path: string): string {
  return readFileSync(path, "utf8").trimEnd().split("\n").at(-1) ?? "";
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** @param hurry nobody waits for what a proxy still has to say: all of the cluster ends. */
async function end(child: ChildProcess | undefined, hurry: boolean): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const again = hurry ? setTimeout(() => child.kill("SIGTERM"), HURRY_MS) : undefined;
  const patience = setTimeout(() => child.kill("SIGKILL"), END_MS);
  await gone;
  clearTimeout(again);
  clearTimeout(patience);
}
