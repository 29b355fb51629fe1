import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Client, type JobJson } from "../../cmd/mr/client.ts";
import { LocalCluster, type Role } from "../../cmd/mr/local_cluster.ts";
import type { TestCluster } from "./cluster.ts";
import { FailurePoints } from "./failure_points.ts";
import { FaultyHttp, FaultyLink } from "./fault_proxies.ts";
import { atExit, freePort, scratchFolder, until } from "./processes.ts";
import { type TestServer, useAzurite, useEtcd } from "./servers.ts";

export interface FaultyClusterOptions {
  masters?: number;
  workers?: number;
  slots?: number;
  /** Real etcd and Azurite, each behind links that can fail; default the embedded backends. */
  remote?: boolean;
  etcdArgs?: string[];
  env?: Record<string, string>;
  envOf?: (role: Role, number: number) => Record<string, string>;
}

/** Short enough that a test need not wait long, long enough for a busy machine. */
export const TIMES = {
  MR_LEADER_TTL_MS: "2000",
  MR_LEASE_MS: "4000",
  MR_HEARTBEAT_MS: "500",
  MR_RECONNECT_MS: "1000",
  MR_GRACE_MS: "0",
  MR_PATIENCE_MS: "4000",
  MR_LOG_LEVEL: "debug",
};

/** Real processes in which anything can fail on demand. */
export class FaultyCluster implements TestCluster {
  readonly cluster: LocalCluster;
  readonly url: string;
  readonly dir: string;
  readonly client: Client;
  readonly points: FailurePoints;
  readonly parts: FaultyParts;
  private readonly stop: () => Promise<void>;

  constructor(
    cluster: LocalCluster,
    url: string,
    dir: string,
    points: FailurePoints,
    parts: FaultyParts,
    stop: () => Promise<void>,
  ) {
    this.cluster = cluster;
    this.url = url;
    this.dir = dir;
    this.client = new Client(url);
    this.points = points;
    this.parts = parts;
    this.stop = stop;
  }

  pids(role: Role): number[] {
    const members = this.cluster.processes().filter((member) => member.role === role);
    return members.flatMap(({ pid }) => pid ?? []);
  }

  /** Who leads, and which of the masters (from 0) that is. */
  async leader(): Promise<{ pid: number; epoch: number; index: number }> {
    return until("a leader", async () => {
      const found = await this.client
        .json<{ pid: number; epoch: number }>("/leader")
        .catch(() => undefined);
      const masters = this.cluster.processes().filter(({ role }) => role === "master");
      const index = masters.findIndex(({ pid }) => pid === found?.pid);
      return found !== undefined && index >= 0 && { ...found, index };
    });
  }

  async otherLeader(than: {
    epoch: number;
  }): Promise<{ pid: number; epoch: number; index: number }> {
    return until("another leader", async () => {
      const next = await this.leader();
      return next.epoch > than.epoch && next;
    });
  }

  /** Submits without waiting for the end. */
  async submit(request: object, headers: Record<string, string> = {}): Promise<string> {
    const { id } = await this.client.json<{ id: string }>("/request", {
      method: "POST",
      headers: { prefer: "respond-async", ...headers },
      body: JSON.stringify(request),
    });
    return id;
  }

  async job(id: string): Promise<JobJson> {
    return this.client.json<JobJson>(`/jobs/${id}`);
  }

  async ended(id: string, deadlineMs = 90_000): Promise<JobJson> {
    return until(
      `the end of ${id}`,
      async () => {
        const job = await this.job(id).catch(() => undefined);
        return job !== undefined && /succeeded|failed|cancelled/.test(job.state) && job;
      },
      deadlineMs,
    );
  }

  /** What a process has logged, a line each. */
  async log(name: string): Promise<LogLine[]> {
    const text = await readFile(join(this.dir, "logs", `${name}.log`), "utf8").catch(() => "");
    return text.split("\n").flatMap((line) => {
      try {
        const said = JSON.parse(line) as LogLine;
        return { ...said, time: Date.parse(String(said.time)) };
      } catch {
        return [];
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** The attempt that has won each task so far. */
export async function winners(cluster: FaultyCluster, id: string): Promise<Map<string, string>> {
  const { tasks } = await cluster.client.json<{
    tasks: { id: string; attempts: { id: string; state: string }[] }[];
  }>(`/jobs/${id}/tasks`);
  return new Map(
    tasks.flatMap(({ id: task, attempts }) =>
      attempts.filter(({ state }) => state === "won").map((attempt) => [task, attempt.id] as const),
    ),
  );
}

export async function someTasksDone(
  cluster: FaultyCluster,
  id: string,
): Promise<Map<string, string>> {
  return until("a few tasks done", async () => {
    const won = await winners(cluster, id).catch(() => undefined);
    return won !== undefined && won.size >= 3 && won;
  });
}

/** Nothing that was done before is done again. */
export async function checkWinners(
  cluster: FaultyCluster,
  id: string,
  before: Map<string, string>,
) {
  const after = await winners(cluster, id);
  for (const [task, attempt] of before) assert.equal(after.get(task), attempt, `${task} ran again`);
}

export interface LogLine {
  /** In ms since 1970. */
  time: number;
  pid: number;
  msg: string;
  [field: string]: unknown;
}

export interface FaultyParts {
  etcd: (TestServer & { address: string }) | undefined;
  azurite: (TestServer & { connectionString: string }) | undefined;
  /** From each master to etcd. */
  etcdLinks: FaultyLink[];
  /** From everybody to each master. */
  masterLinks: FaultyLink[];
  /** From everybody to Blob. */
  storage: FaultyHttp | undefined;
}

export async function useFaultyCluster(options: FaultyClusterOptions = {}): Promise<FaultyCluster> {
  const stack = new AsyncDisposableStack();
  try {
    const folder = stack.use(await scratchFolder("faulty"));
    const orders = join(folder.path, "orders");
    await mkdir(orders);
    const points = new FailurePoints(orders);
    const masters = options.masters ?? 1;
    const parts = await openParts(stack, masters, options);
    const ports = parts.masterLinks.map(({ target }) => target);
    const storage = parts.storage?.port;
    const cluster = new LocalCluster({
      dir: folder.path,
      port: 0,
      masters,
      workers: options.workers ?? 2,
      slotsPerWorker: options.slots ?? 1,
      etcd: parts.etcd?.address,
      blob:
        storage === undefined
          ? undefined
          : parts.azurite?.connectionString.replace(/(127\.0\.0\.1):\d+/, `$1:${storage}`),
      nodeArgs: points.nodeArgs,
      restartsMax: 1_000,
      envOf: (role, number) => ({
        ...TIMES,
        ...options.env,
        ...(role === "master" && {
          RPC_PORT: String(ports[number - 1]),
          RPC_ADDRESS: `127.0.0.1:${parts.masterLinks[number - 1]?.port}`,
          ...(parts.etcd !== undefined && {
            ETCD_ADDRESS: `http://127.0.0.1:${parts.etcdLinks[number - 1]?.port}`,
          }),
        }),
        ...options.envOf?.(role, number),
      }),
      say: () => undefined,
    });
    stack.defer(atExit(() => cluster.kill()));
    stack.defer(() => cluster.close());
    const url = await cluster.start();
    const owned = stack.move();
    return new FaultyCluster(cluster, url, folder.path, points, parts, () => owned.disposeAsync());
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

async function openParts(
  stack: AsyncDisposableStack,
  masters: number,
  options: FaultyClusterOptions,
): Promise<FaultyParts> {
  const parts: FaultyParts = {
    etcd: undefined,
    azurite: undefined,
    etcdLinks: [],
    masterLinks: [],
    storage: undefined,
  };
  for (let i = 0; i < masters; i += 1)
    parts.masterLinks.push(stack.use(await FaultyLink.open(await freePort())));
  if (options.remote !== true) return parts;
  parts.etcd = stack.use(await useEtcd(options.etcdArgs));
  parts.azurite = stack.use(await useAzurite());
  const etcdPort = Number(new URL(parts.etcd.address).port);
  for (let i = 0; i < masters; i += 1)
    parts.etcdLinks.push(stack.use(await FaultyLink.open(etcdPort)));
  const blobPort = Number(/127\.0\.0\.1:(\d+)/.exec(parts.azurite.connectionString)?.[1]);
  parts.storage = stack.use(await FaultyHttp.open(blobPort));
  return parts;
}
