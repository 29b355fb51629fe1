/**
 * What the control plane bears: tasks of no length, through real masters, a real etcd and a real
 * connection for each worker. Measures completions a second, processor time and memory by process,
 * what lies in etcd, and how long it takes until all is as fast again when the leader is killed.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { scratchFolder, until } from "../support/processes.ts";
import { useEtcd } from "../support/servers.ts";
import {
  leaderOf,
  MasterChild,
  makeInput,
  submitJobs,
  WorkersChild,
} from "./control_plane_cluster.ts";
import { cpuMs, EtcdProbe } from "./control_plane_probe.ts";
import { Timeline } from "./control_plane_timeline.ts";

const USAGE = `node test/bench/control_plane.ts [--workers N] [--tasks N] [--slots N] [--cpus LIST] [--quick] [--json FILE]
  --workers N    sessions, each on a connection of its own; default 2000
  --tasks N      map tasks in all; default 200000
  --per-job N    map tasks of one job; default 10000, the most there can be
  --slots N      of each worker; default 4
  --processes N  that hold the workers; default 1
  --cpus LIST    the processors for everything; default 0,1
  --profile DIR  writes a CPU profile of the leader, and kills nobody
  --calm         kills nobody
  --quick        200 workers, 20000 tasks
  --json FILE    writes the figures there, too
`;

const { values } = parseArgs({
  options: {
    workers: { type: "string" },
    tasks: { type: "string" },
    "per-job": { type: "string", default: "10000" },
    slots: { type: "string", default: "4" },
    processes: { type: "string", default: "1" },
    cpus: { type: "string", default: "0,1" },
    profile: { type: "string" },
    calm: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const TTL_MS = 3_000;
/** As fast again as before: at this share of it. */
const FULL_SPEED = 0.8;
/** Shares of the tasks between which the speed is looked at, and where the leader is killed. */
const STEADY_FROM = 0.05;
const KILL_AT = 0.5;
const END_AT = 0.97;

const figures: Record<string, number | string> = {};

function say(title: string, value: number | string, unit = ""): void {
  figures[title] = value;
  const text = typeof value === "number" ? value.toLocaleString("en", DIGITS) : value;
  process.stdout.write(`${title.padEnd(44)} ${text.padStart(12)} ${unit}\n`);
}

const DIGITS = { maximumSignificantDigits: 4 };

async function main(): Promise<void> {
  const workers = Number(values.workers ?? (values.quick ? 200 : 2_000));
  const tasks = Number(values.tasks ?? (values.quick ? 20_000 : 200_000));
  const slots = Number(values.slots);
  const isCalm = values.calm || values.profile !== undefined;
  spawnSync("taskset", ["-a", "-c", "-p", values.cpus, String(process.pid)]);

  await using folder = await scratchFolder("control-plane");
  await using etcd = await useEtcd(["--quota-backend-bytes", String(8 * 2 ** 30)]);
  const probe = new EtcdProbe(etcd.address);
  const storeDir = join(folder.path, "store");
  await makeInput(storeDir, Number(values["per-job"]));
  const env = {
    ETCD_ADDRESS: etcd.address,
    MR_STORE_DIR: storeDir,
    MR_LEADER_TTL_MS: String(TTL_MS),
    MR_LOG_LEVEL: process.env.MR_LOG_LEVEL ?? "error",
  };
  const nodeArgs = values.profile ? ["--cpu-prof", "--cpu-prof-dir", values.profile] : [];
  const masters = [new MasterChild(env, nodeArgs), new MasterChild(env, nodeArgs)];
  await until("two masters", () => masters.every(({ address }) => address !== ""));
  let leader = await leaderOf(masters);
  let leading = masters.find(({ pid }) => pid === leader.pid) as MasterChild;
  const bare = await leading.memory();

  const timeline = new Timeline();
  const holders = holdWorkers(masters, workers, slots, timeline);
  await until("all sessions", () => timeline.sessions === workers, 60_000 + workers * 20);
  await delay(2_500); // A heartbeat of each.
  const idle = await leading.memory();
  say("workers", workers);
  say("leader's memory per worker: heap", (idle.heapUsed - bare.heapUsed) / workers / 1_024, "KB");
  say("leader's memory per worker: resident", (idle.rss - bare.rss) / workers / 1_024, "KB");

  const pids = {
    leader: leading.pid,
    etcd: etcd.process.child.pid ?? 0,
    workers: holders[0]?.pid ?? 0,
  };
  const cpu = () => Object.entries(pids).map(([name, pid]) => [name, cpuMs(pid)] as const);
  const askedMs = Date.now();
  await submitJobs(leader.address, tasks, Number(values["per-job"]));
  say("plans recorded, tasks a second", (tasks * 1_000) / (Date.now() - askedMs));
  const begunMs = Date.now();
  for (const holder of holders) holder.begin();
  const reached = (share: number) =>
    until(`${share} of the tasks`, () => timeline.settled >= tasks * share, 600_000);
  await reached(STEADY_FROM);
  const from = {
    cpu: cpu(),
    settled: timeline.settled,
    commits: await probe.commits(),
    atMs: Date.now(),
  };
  await reached(isCalm ? END_AT : KILL_AT);
  const to = {
    cpu: cpu(),
    settled: timeline.settled,
    commits: await probe.commits(),
    atMs: Date.now(),
  };
  const done = to.settled - from.settled;
  const rate = timeline.medianRate(from.atMs, to.atMs);
  say("until the first tasks were done", timeline.settledAfter(begunMs) - begunMs, "ms");
  say("completions a second, median", rate);
  say("completions a second, mean", (done * 1_000) / (to.atMs - from.atMs));
  say("commits a second", ((to.commits - from.commits) * 1_000) / (to.atMs - from.atMs));
  say("tasks a commit", done / (to.commits - from.commits));
  to.cpu.forEach(([name, ms], index) => {
    const tookMs = ms - (from.cpu[index]?.[1] ?? 0);
    say(`processor time per task: ${name}`, (tookMs * 1_000) / done, "us");
  });

  if (!isCalm) {
    const killedMs = Date.now();
    const recorded = timeline.settled;
    await leading.end("SIGKILL");
    masters.splice(masters.indexOf(leading), 1);
    leader = await leaderOf(masters);
    const electedMs = Date.now();
    leading = masters[0] as MasterChild;
    const fast = () => timeline.fastAgain(electedMs, rate * FULL_SPEED);
    await until("full speed", () => timeline.settled >= tasks * END_AT || fast(), 120_000);
    const atSpeedMs = fast();
    say("tasks recorded at the leader's death", recorded);
    say("the next one elected after", electedMs - killedMs, "ms");
    say(
      "first completion, less the TTL",
      timeline.settledAfter(electedMs) - killedMs - TTL_MS,
      "ms",
    );
    say("full speed, less the TTL", atSpeedMs ? atSpeedMs - killedMs - TTL_MS : "never", "ms");
  }
  await reached(1);
  if (!isCalm)
    say("completions a second, second leader", timeline.medianRate(Date.now() - 3_000, Date.now()));
  await delay(1_000);
  const full = await leading.memory();
  say("leader's memory per task: heap", (full.heapUsed - idle.heapUsed) / tasks / 1_024, "KB");
  say("leader's memory per task: resident", (full.rss - idle.rss) / tasks / 1_024, "KB");
  say("leader's resident memory", full.rss / 2 ** 20, "MiB");
  const stored = await probe.stored();
  for (const [kind, { keys, bytes }] of Object.entries(stored))
    if (keys >= tasks) say(`bytes of a record: ${kind}`, bytes / keys);
  const bytes = Object.values(stored).reduce((sum, kind) => sum + kind.bytes, 0);
  say("bytes per task: keys and values", bytes / tasks);
  say("bytes per task: etcd's file", (await probe.dbBytes()) / tasks);
  say("tasks told that they lost", timeline.lost);
  await Promise.all(holders.map((holder) => holder.end("SIGKILL")));
  await Promise.all(masters.map((master) => master.end(values.profile ? "SIGTERM" : "SIGKILL")));
}

function holdWorkers(masters: MasterChild[], workers: number, slots: number, timeline: Timeline) {
  const processes = Number(values.processes);
  const count = Math.ceil(workers / processes);
  return Array.from({ length: processes }, (_, index) => {
    const first = index * count;
    const options = {
      masters: masters.map(({ address }) => address),
      first,
      count: Math.min(count, workers - first),
      slots,
    };
    const child: WorkersChild = new WorkersChild(options, () => timeline.hear(index, child.latest));
    return child;
  });
}

if (values.help) process.stdout.write(USAGE);
else {
  // Children and folders are removed at exit, whatever ends us.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
  await main();
  if (values.json) writeFileSync(values.json, `${JSON.stringify(figures, null, 2)}\n`);
  process.exit(0);
}
