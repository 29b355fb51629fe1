import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";

const JOBS = 200;
/** By then caches are warm and the heap has found its size. */
const WARM = 60;
/** What the rest of the jobs may add, in MB: a leak of half a megabyte a job would show. */
const GROWTH_MAX_MB = 60;

/** Resident memory of a process in MB. */
function rssMb(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

/** Each tells its own. */
async function pidsOf(cluster: TestCluster): Promise<Record<string, number>> {
  const leader = await cluster.client.json<{ pid: number }>("/leader");
  const { workers } = await cluster.client.json<{ workers: { pid: number }[] }>("/workers");
  const proxy = await cluster.client.json<{ pid: number }>("/healthz");
  return { master: leader.pid, proxy: proxy.pid, worker: workers[0]?.pid ?? 0 };
}

describe("memory", () => {
  it(`of master, proxy and worker stays flat over ${JOBS} small jobs`, async (context) => {
    await using cluster = await useCluster({ workers: 1, slots: 2 });
    const { client } = cluster;
    await putText(
      client,
      "dfs-scripts",
      "cat.py",
      "import sys\nsys.stdout.write(sys.stdin.read())\n",
    );
    await putText(client, "text", "a", "b\t1\na\t2\n");
    const pids = await pidsOf(cluster);
    const sample = () =>
      Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, rssMb(pid)]));
    const samples: Record<string, number>[] = [];
    const request = { mapper: "cat.py", reducer: "cat.py", data: "text", m_num: 1, r_num: 1 };
    for (let i = 1; i <= JOBS; i += 1) {
      const job = await runJob(client, request);
      assert.equal(job.state, "succeeded");
      if (i % 20 === 0) samples.push(sample());
    }
    for (const name of Object.keys(pids)) {
      const line = samples.map((taken) => Math.round(taken[name] ?? 0));
      context.diagnostic(`${name}: RSS in MB after each 20 jobs: ${line.join(" ")}`);
    }
    for (const name of Object.keys(pids)) {
      const warm = samples[WARM / 20 - 1]?.[name] ?? 0;
      const last = Math.min(...samples.slice(-3).map((taken) => taken[name] ?? 0));
      assert.ok(last - warm < GROWTH_MAX_MB, `${name} grew from ${warm} to ${last} MB`);
    }
  });
});
