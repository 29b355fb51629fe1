import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import type { JobJson } from "../../cmd/mr/client.ts";
import {
  outputOf,
  processesIn,
  putExample,
  putFile,
  putText,
  type TestCluster,
  type TestClusterOptions,
  useCluster,
} from "../support/cluster.ts";
import { writeCorpus } from "../support/corpus.ts";
import { oracle, sortedLines } from "../support/oracle.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { useAzurite, useEtcd } from "../support/servers.ts";

const FILES = 12;
const SCRIPTS = join(import.meta.dirname, "..", "..", "examples", "py_scripts", "word_count");
const REQUEST = {
  mapper: "word_count/mapper.py",
  reducer: "word_count/reducer.py",
  data: "text",
  m_num: 24,
  r_num: 4,
};

interface TaskJson {
  id: string;
  state: string;
  attempts: { id: string; state: string }[];
}

/** Which attempt has won each task that is done. */
async function winners(cluster: TestCluster, id: string): Promise<Map<string, string>> {
  const { tasks } = await cluster.client.json<{ tasks: TaskJson[] }>(`/jobs/${id}/tasks`);
  const won = new Map<string, string>();
  for (const { id: task, attempts } of tasks)
    for (const attempt of attempts) if (attempt.state === "won") won.set(task, attempt.id);
  return won;
}

/**
 * Runs a job by one curl, kills something while it is in the middle, and holds
 * the answer and the output against a run that nothing disturbed.
 */
async function killDuringJob(
  options: TestClusterOptions,
  kill: (cluster: TestCluster) => Promise<void>,
): Promise<void> {
  await using cluster = await useCluster({ workers: 2, slots: 1, ...options });
  await using folder = await scratchFolder("corpus");
  const files = await writeCorpus(folder.path, { files: FILES, bytesPerFile: 600_000, seed: 5 });
  await putExample(cluster.client, "word_count");
  for (const [i, path] of files.entries()) await putFile(cluster.client, "text", `${i}`, path);
  const body = JSON.stringify(REQUEST);
  const curl = promisify(execFile)("curl", [
    "-sS",
    "-N",
    "-X",
    "POST",
    `${cluster.url}/request`,
    "-d",
    body,
  ]);
  const running = await until("a job with a few maps done", async () => {
    const { jobs } = await cluster.client.json<{ jobs: JobJson[] }>("/tasks");
    return jobs.find((job) => job.map.done >= 3);
  });
  const before = await winners(cluster, running.id);
  assert.ok(before.size >= 3 && before.size < 28, `${before.size} tasks were done`);
  await kill(cluster);
  const { stdout } = await curl;
  const lines = stdout.trimEnd().split("\n");
  const last = JSON.parse(lines.at(-1) ?? "") as JobJson;
  assert.equal(last.id, running.id);
  assert.equal(last.state, "succeeded", JSON.stringify(last.error));
  const after = await winners(cluster, running.id);
  for (const [task, attempt] of before)
    assert.equal(after.get(task), attempt, `${task} was run again`);
  assert.equal(after.size, 28);
  const input = Buffer.concat(await Promise.all(files.map((path) => readFile(path))));
  const scripts = await Promise.all(
    ["mapper.py", "reducer.py"].map((name) => readFile(join(SCRIPTS, name), "utf8")),
  );
  const expected = await oracle(input, scripts[0] ?? "", scripts[1] ?? "");
  assert.ok(sortedLines(await outputOf(cluster.client, last.id)).equals(expected));
}

async function killLeader(cluster: TestCluster): Promise<void> {
  const leader = await cluster.client.json<{ pid: number; epoch: number }>("/leader");
  process.kill(leader.pid, "SIGKILL");
  await until("another leader", async () => {
    const next = await cluster.client.json<{ epoch: number }>("/leader").catch(() => undefined);
    return next !== undefined && next.epoch > leader.epoch;
  });
}

async function killWorker(cluster: TestCluster): Promise<void> {
  const busy = await until("a busy worker", async () => {
    const { workers } = await cluster.client.json<{
      workers: { pid: number; attempts: string[] }[];
    }>("/workers");
    return workers.find((worker) => worker.attempts.length > 0);
  });
  process.kill(busy.pid, "SIGKILL");
}

describe("a job survives", () => {
  it("kill -9 of the leader", () => killDuringJob({ masters: 2 }, killLeader));

  it("kill -9 of a worker", () => killDuringJob({}, killWorker));

  it("kill -9 of a worker, and the script does not outlive it", async () => {
    await using cluster = await useCluster({ workers: 1, slots: 1 });
    const { client } = cluster;
    await putText(client, "dfs-scripts", "spin.py", "while True: pass\n");
    await putText(client, "text", "a", "x\n");
    const body = JSON.stringify({ mapper: "spin.py", data: "text", m_num: 1, r_num: 0 });
    const init = { method: "POST", headers: { prefer: "respond-async" }, body };
    const { id } = await client.json<{ id: string }>("/request", init);
    const [script] = await until("the script", () => {
      const found = processesIn(join(cluster.dir, "scratch"));
      return found.length > 0 && found;
    });
    await killWorker(cluster);
    await until("its end", () => !processesIn(join(cluster.dir, "scratch")).includes(script ?? 0));
    await client.json(`/jobs/${id}`, { method: "DELETE" });
  });

  it("kill -9 of the leader on etcd and Azurite", async () => {
    await using etcd = await useEtcd();
    await using azurite = await useAzurite();
    const options = { masters: 2, etcd: etcd.address, blob: azurite.connectionString };
    await killDuringJob(options, killLeader);
  });

  it("the planned hand-over of the leader", () =>
    killDuringJob({ masters: 2 }, async (cluster) => {
      const leader = await cluster.client.json<{ pid: number }>("/leader");
      process.kill(leader.pid, "SIGTERM");
    }));
});
