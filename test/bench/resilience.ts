/**
 * What trouble costs, side by side with the same job undisturbed, on this machine's
 * embedded backends. Tasks only pass time, so that it is the scheduler that is measured.
 */

import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { processesIn, putText, runJob } from "../support/cluster.ts";
import { type FaultyCluster, useFaultyCluster } from "../support/faulty_cluster.ts";

const RUNS = Number(process.env.MR_BENCH_RUNS ?? 5);

/** In slices, so that a process that stands still half of the time takes twice as long. */
const PASS_TIME = `import os, sys, time
for line in sys.stdin: pass
for _ in range(int(os.environ["SLICES"])): time.sleep(0.01)
`;

type Trouble = (cluster: FaultyCluster, over: AbortSignal) => Promise<void>;

async function timeJob(
  cluster: FaultyCluster,
  request: object,
  trouble?: Trouble,
): Promise<number> {
  const over = new AbortController();
  const startMs = performance.now();
  const troubling = trouble?.(cluster, over.signal);
  const job = await runJob(cluster.client, request);
  const tookMs = performance.now() - startMs;
  over.abort();
  await troubling;
  if (job.state !== "succeeded") throw new Error(JSON.stringify(job));
  return tookMs;
}

/** Runs both in turn; medians, and the ratio of each pair. */
async function compare(
  title: string,
  options: { workers: number; tasks: number; slices: number },
  trouble: Trouble,
): Promise<void> {
  const env = {
    MR_LEASE_MS: "10000",
    MR_HEARTBEAT_MS: "2000",
    MR_RECONNECT_MS: "3000",
    MR_LOG_LEVEL: "info",
  };
  await using cluster = await useFaultyCluster({ workers: options.workers, env });
  await putText(cluster.client, "dfs-scripts", "pass_time.py", PASS_TIME);
  await putText(cluster.client, "text", "a", "x\n".repeat(options.tasks * 100));
  const request = {
    mapper: "pass_time.py",
    data: "text",
    m_num: options.tasks,
    r_num: 0,
    env: { SLICES: String(options.slices) },
  };
  await timeJob(cluster, request);
  const calm: number[] = [];
  const troubled: number[] = [];
  for (let run = 0; run < RUNS; run += 1) {
    calm.push(await timeJob(cluster, request));
    troubled.push(await timeJob(cluster, request, trouble));
    await wholeAgain(cluster, options.workers);
  }
  const ratios = troubled.map((ms, i) => ms / (calm[i] as number));
  const line = `${title}: ${seconds(median(calm))} undisturbed, ${seconds(median(troubled))} disturbed`;
  const all = ratios.map((ratio) => ratio.toFixed(2)).join(" ");
  process.stdout.write(`${line}; ratio ${median(ratios).toFixed(2)} (of ${RUNS}: ${all})\n`);
}

async function wholeAgain(cluster: FaultyCluster, workers: number): Promise<void> {
  while (true) {
    const answer = await cluster.client.json<{ workers: { state: string }[] }>("/workers");
    if (answer.workers.filter(({ state }) => state === "connected").length === workers) return;
    await delay(100);
  }
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] as number;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2)} s`;
}

/** One of nine workers is killed in the middle; it is started again after half a second. */
const killOne: Trouble = async (cluster, over) => {
  await delay(3_000, undefined, { signal: over }).catch(() => undefined);
  const [victim] = cluster.pids("worker");
  if (victim !== undefined && !over.aborted) process.kill(victim, "SIGKILL");
};

/** A worker and its scripts stand still nine tenths of the time. */
const slowOne: Trouble = async (cluster, over) => {
  const { workers } = await cluster.client.json<{ workers: { id: string; pid: number }[] }>(
    "/workers",
  );
  const [victim] = workers;
  if (victim === undefined) return;
  const scratch = join(cluster.dir, "scratch", victim.id);
  const signal = (name: NodeJS.Signals, pids: number[]) => {
    for (const pid of pids)
      try {
        process.kill(pid, name);
      } catch {
        // It has ended.
      }
  };
  while (!over.aborted) {
    const pids = [victim.pid, ...processesIn(scratch)];
    signal("SIGSTOP", pids);
    await delay(90);
    signal("SIGCONT", pids);
    await delay(10);
  }
};

await compare("200 tasks, 1 of 9 workers killed", { workers: 9, tasks: 200, slices: 30 }, killOne);
await compare(
  "60 tasks, 1 of 4 workers ten times slower",
  { workers: 4, tasks: 60, slices: 100 },
  slowOne,
);
