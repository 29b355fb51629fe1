import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { FailurePoint } from "../../internal/model/failure_point.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { processesIn } from "../support/cluster.ts";
import type { HttpFault, LinkFault } from "../support/fault_proxies.ts";
import type { FaultyCluster } from "../support/faulty_cluster.ts";
import { until } from "../support/processes.ts";
import type { History } from "./history.ts";
import type { RecoveryTimes } from "./recovery.ts";

/** What a fault may use, and where it tells what it did. */
export interface Chaos {
  cluster: FaultyCluster;
  history: History;
  /** Past the proxies. */
  store: ObjectStore;
  times: RecoveryTimes;
  /** Jobs of this round. */
  jobs: string[];
  /** Those of them that were asked to be cancelled. */
  cancelled: Set<string>;
  random: () => number;
  say: (line: string) => void;
}

const MASTER_POINTS: FailurePoint[] = [
  "master.commit.before",
  "master.commit.after",
  "master.publish.before-part",
  "master.publish.after-part",
  "master.publish.before-marker",
  "master.publish.after-marker",
  "master.sweep.before",
  "master.takeover.read",
];
const WORKER_POINTS: FailurePoint[] = [
  "worker.map.before-upload",
  "worker.map.before-publish",
  "worker.map.after-publish",
  "worker.reduce.before-read",
  "worker.reduce.before-seal",
  "worker.reduce.after-seal",
];

/** Every fault by name. Each takes back what lasts before it ends. */
export const FAULTS: Record<string, (chaos: Chaos) => Promise<void>> = {
  "leader-kill": async (chaos) => {
    const { pid } = await chaos.cluster.leader();
    signal(chaos, pid, "SIGKILL");
    chaos.times.leaderKilled(pid);
  },
  "leader-hand-over": async (chaos) => {
    const { pid } = await chaos.cluster.leader();
    signal(chaos, pid, "SIGTERM");
    chaos.times.leaderLeaves(pid);
  },
  "leader-stop": async (chaos) => {
    const { pid } = await chaos.cluster.leader();
    await standStill(chaos, pid, between(chaos, 500, 7_000));
  },
  "leader-point": (chaos) => killAt(chaos, pick(chaos, MASTER_POINTS)),
  "leader-cut-from-etcd": async (chaos) => {
    const { index } = await chaos.cluster.leader();
    const link = chaos.cluster.parts.etcdLinks[index];
    const fault = linkFault(chaos);
    const ms = between(chaos, 500, 6_000);
    chaos.say(`master ${index} has its link to etcd ${fault} for ${ms} ms`);
    link?.break(fault);
    await delay(ms);
    link?.mend();
  },
  "masters-restart": async (chaos) => {
    for (const pid of chaos.cluster.pids("master")) {
      signal(chaos, pid, "SIGTERM");
      await delay(between(chaos, 500, 2_000));
    }
  },
  "worker-kill": async (chaos) => {
    const pid = pick(chaos, chaos.cluster.pids("worker"));
    signal(chaos, pid, "SIGKILL");
    chaos.times.workerKilled(pid);
  },
  "worker-leave": async (chaos) => {
    const pid = pick(chaos, chaos.cluster.pids("worker"));
    signal(chaos, pid, "SIGTERM");
    chaos.times.workerLeaves(pid);
  },
  "worker-stop": (chaos) =>
    standStill(chaos, pick(chaos, chaos.cluster.pids("worker")), between(chaos, 500, 9_000)),
  "worker-point": (chaos) => killAt(chaos, pick(chaos, WORKER_POINTS)),
  "worker-cut-from-leader": async (chaos) => {
    const { index } = await chaos.cluster.leader();
    const link = chaos.cluster.parts.masterLinks[index];
    const pid = pick(chaos, chaos.cluster.pids("worker"));
    const fault = linkFault(chaos);
    const ms = between(chaos, 500, 8_000);
    chaos.say(`worker ${pid} has its link to the leader ${fault} for ${ms} ms`);
    link?.break(fault, pid);
    await delay(ms);
    link?.mend();
  },
  "all-workers-kill": async (chaos) => {
    for (const pid of chaos.cluster.pids("worker")) signal(chaos, pid, "SIGKILL");
  },
  "streams-reset": async (chaos) => {
    chaos.say("every connection to the masters is torn down");
    for (const link of chaos.cluster.parts.masterLinks) {
      link.break("reset");
      link.mend();
    }
  },
  "slow-links": async (chaos) => {
    const links = [...chaos.cluster.parts.etcdLinks, ...chaos.cluster.parts.masterLinks];
    const ms = between(chaos, 10, 150);
    chaos.say(`links to etcd and to the masters take ${ms} ms longer`);
    for (const link of links) link.delayMs = ms;
    await delay(4_000);
    for (const link of links) link.delayMs = 0;
  },
  goaway: async (chaos) => {
    chaos.say("masters send GOAWAY");
    chaos.cluster.points.goaway(true);
    await delay(between(chaos, 200, 3_000));
    chaos.cluster.points.goaway(false);
  },
  clock: async (chaos) => {
    const ms = pick(chaos, [3_600_000, -3_600_000]);
    chaos.say(`the wall clock is set by ${ms} ms`);
    chaos.cluster.points.setClock(ms);
    await delay(3_000);
    chaos.cluster.points.setClock(0);
  },
  "etcd-stop": async (chaos) => {
    const pid = chaos.cluster.parts.etcd?.process.child.pid;
    if (pid !== undefined) await standStill(chaos, pid, between(chaos, 500, 6_000));
  },
  "storage-503": async (chaos) => {
    const ms = between(chaos, 500, 5_000);
    chaos.say(`storage answers 503 for ${ms} ms`);
    await storageFault(chaos, ms, () => ({ kind: "status", status: 503 }));
  },
  "storage-flaky": async (chaos) => {
    chaos.say("a tenth of all storage requests fail");
    const faults: HttpFault[] = [
      { kind: "status", status: 503 },
      { kind: "status", status: 500 },
      { kind: "lose-reply" },
      { kind: "break-body", bytes: 200 },
    ];
    await storageFault(chaos, 5_000, () =>
      chaos.random() < 0.1 ? pick(chaos, faults) : undefined,
    );
  },
  cancel,
  "map-output-lost": async (chaos) => {
    // It hurts most when some reducers have read it and others have not.
    for (let looks = 0; looks < 100; looks += 1) {
      const job = chaos.jobs.find((id) => chaos.history.isReducing(id));
      if (job !== undefined) {
        const object = pick(chaos, chaos.history.mapOutputs(job));
        chaos.say(`${object} is deleted`);
        return chaos.store.delete("dfs-intermediate", object);
      }
      await delay(50);
    }
    chaos.say("no map output was there to be deleted");
  },
};

async function cancel(chaos: Chaos): Promise<void> {
  const [id] = chaos.jobs;
  if (id === undefined) return;
  chaos.say(`${id} is cancelled`);
  chaos.cancelled.add(id);
  const startMs = performance.now();
  await chaos.cluster.client.json(`/jobs/${id}`, { method: "DELETE" }).catch(() => undefined);
  const scratch = join(chaos.cluster.dir, "scratch");
  await until("the end of its scripts", () => processesIn(scratch, id).length === 0, 60_000);
  chaos.times.cancelled(performance.now() - startMs);
}

function signal(chaos: Chaos, pid: number, name: NodeJS.Signals): void {
  chaos.say(`${name} to ${pid}`);
  try {
    process.kill(pid, name);
  } catch {
    chaos.say(`${pid} was gone`);
  }
}

async function standStill(chaos: Chaos, pid: number, ms: number): Promise<void> {
  chaos.say(`${pid} stands still for ${ms} ms`);
  signal(chaos, pid, "SIGSTOP");
  await delay(ms);
  signal(chaos, pid, "SIGCONT");
}

/** Whoever is there first within the round. */
async function killAt(chaos: Chaos, point: FailurePoint): Promise<void> {
  const order = `kill@${between(chaos, 1, 6)}`;
  chaos.cluster.points.arm(point, order);
  for (let i = 0; i < 50 && chaos.cluster.points.wasHit(point) === undefined; i += 1)
    await delay(100);
  chaos.cluster.points.disarm(point);
  chaos.say(`${order} ${point}: ${chaos.cluster.points.wasHit(point) ?? "nobody came by"}`);
}

async function storageFault(
  chaos: Chaos,
  ms: number,
  rule: () => HttpFault | undefined,
): Promise<void> {
  const { storage } = chaos.cluster.parts;
  if (storage === undefined) return;
  storage.rule = rule;
  await delay(ms);
  storage.rule = () => undefined;
}

function linkFault(chaos: Chaos): LinkFault {
  return pick(chaos, ["cut", "cut-up", "cut-down", "reset"]);
}

export function between(chaos: Pick<Chaos, "random">, min: number, max: number): number {
  return Math.round(min + chaos.random() * (max - min));
}

export function pick<T>(chaos: Pick<Chaos, "random">, items: T[]): T {
  return items[Math.floor(chaos.random() * items.length)] as T;
}
