import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { INDEX_ENTRY_BYTES } from "../../internal/shuffle/run_format.ts";
import { processesIn } from "../support/cluster.ts";
import {
  type FaultyCluster,
  someTasksDone,
  useFaultyCluster,
  winners,
} from "../support/faulty_cluster.ts";
import { KnownJobs } from "../support/known_jobs.ts";
import { until } from "../support/processes.ts";

interface WorkerJson {
  id: string;
  pid: number;
  attempts: string[];
}

/** A worker that runs a task of this job, and the task. One that has ended may be listed for a moment longer. */
async function busyWorker(
  cluster: FaultyCluster,
  job: string,
): Promise<WorkerJson & { task: string }> {
  return until("a busy worker", async () => {
    const { workers } = await cluster.client.json<{ workers: WorkerJson[] }>("/workers");
    for (const worker of workers)
      for (const attempt of worker.attempts)
        if (attempt.startsWith(`${job}/`))
          return { ...worker, task: attempt.slice(0, attempt.lastIndexOf("/")) };
    return undefined;
  });
}

/** Grants of a task, in order, as the leaders have logged them. */
async function grantsOf(cluster: FaultyCluster, task: string): Promise<string[]> {
  const masters = cluster.cluster.processes().filter(({ role }) => role === "master");
  const logs = await Promise.all(masters.map(({ name }) => cluster.log(name)));
  return logs
    .flat()
    .filter(({ msg, attempt }) => msg === "granted" && String(attempt).startsWith(task))
    .toSorted((a, b) => a.time - b.time)
    .map(({ attempt }) => String(attempt));
}

describe("a worker", () => {
  it("dies at every point of a task's life", async () => {
    await using cluster = await useFaultyCluster({ workers: 3, remote: true });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 1, lines: 300 });
    for (const [point, kind] of [
      ["worker.map.before-upload", "nonces"],
      ["worker.map.before-publish", "nonces"],
      ["worker.map.after-publish", "nonces"],
      ["worker.reduce.before-read", "nonces"],
      ["worker.reduce.before-seal", "nonces"],
      ["worker.reduce.after-seal", "count"],
    ] as const) {
      cluster.points.arm(point, "kill");
      const id = await cluster.submit(jobs.request(kind, { maps: 4, reduces: 3 }));
      await cluster.points.hit(point);
      const job = await cluster.ended(id);
      await jobs.check(job);
      assert.equal(job.attempts.failed, 0, "the script was charged for it");
    }
  });

  it("told to leave, hands back what it runs at once, at no charge", async () => {
    await using cluster = await useFaultyCluster({ workers: 2 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 2, lines: 100 });
    const id = await cluster.submit(jobs.request("count", { maps: 6, sleep: 1 }));
    const busy = await busyWorker(cluster, id);
    process.kill(busy.pid, "SIGTERM");
    await until("another grant", async () => (await grantsOf(cluster, busy.task)).length === 2);
    const job = await cluster.ended(id);
    await jobs.check(job);
    assert.deepEqual(job.attempts, { failed: 0, lost: 0 });
  });

  it("stands still beyond its lease; what it makes then is not taken", async () => {
    await using cluster = await useFaultyCluster({ workers: 2 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 3, lines: 100 });
    cluster.points.arm("worker.map.after-publish", "stop");
    const id = await cluster.submit(jobs.request("nonces", { maps: 4, reduces: 2 }));
    const stopped = await cluster.points.hit("worker.map.after-publish");
    await jobs.check(await cluster.ended(id));
    await until("the end of its lease", async () => {
      const { workers } = await cluster.client.json<{ workers: WorkerJson[] }>("/workers");
      return workers.every(({ pid }) => pid !== stopped);
    });
    process.kill(stopped, "SIGCONT");
    await until("no object of the job", () => !hasObjects(cluster, id));
  });

  // That it ends before the task is given away is watched by the simulation, whose clock nothing delays.
  it("is cut off from the leader only: it ends its script by itself", async () => {
    await using cluster = await useFaultyCluster({ workers: 2 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 4, lines: 100 });
    for (const fault of ["cut", "cut-up", "cut-down"] as const) {
      const id = await cluster.submit(jobs.request("count", { maps: 1, reduces: 1, sleep: 60 }));
      const busy = await busyWorker(cluster, id);
      const scratch = join(cluster.dir, "scratch", busy.id);
      const [script] = await until("its script", () => {
        const found = processesIn(scratch);
        return found.length > 0 && (found as [number]);
      });
      cluster.parts.masterLinks[0]?.break(fault, busy.pid);
      await until("another grant", async () => (await grantsOf(cluster, busy.task)).length === 2);
      await until(`the end of the script (${fault})`, () => !processesIn(scratch).includes(script));
      cluster.parts.masterLinks[0]?.mend();
      await cluster.client.json(`/jobs/${id}`, { method: "DELETE" });
      await cluster.ended(id);
    }
    await jobs.check(await cluster.ended(await cluster.submit(jobs.request("count", { maps: 4 }))));
  });

  it("comes back after all of them are gone", async () => {
    await using cluster = await useFaultyCluster({ workers: 3 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 5, lines: 100 });
    const id = await cluster.submit(jobs.request("nonces", { maps: 8, sleep: 0.4 }));
    await someTasksDone(cluster, id);
    for (const pid of cluster.pids("worker")) process.kill(pid, "SIGKILL");
    const job = await cluster.ended(id);
    await jobs.check(job);
    assert.equal(job.attempts.failed, 0);
  });

  it("has a full disk: another one does its task, and the script is not charged", async () => {
    await using cluster = await useFaultyCluster({ workers: 2, env: { MR_SORT_MB: "1" } });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 6, lines: 40_000 });
    cluster.points.arm("worker.spill.before-write", "fail ENOSPC");
    const id = await cluster.submit(jobs.request("nonces", { maps: 3, reduces: 2 }));
    await cluster.points.hit("worker.spill.before-write");
    const job = await cluster.ended(id);
    await jobs.check(job);
    assert.equal(job.attempts.failed, 0);
  });

  it("is slow: its task is backed up, the first to finish wins", async () => {
    await using cluster = await useFaultyCluster({ workers: 2 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 7, lines: 100 });
    cluster.points.arm("worker.map.before-upload", "wait @ 2");
    const id = await cluster.submit(jobs.request("nonces", { maps: 6, reduces: 2 }));
    await cluster.points.hit("worker.map.before-upload");
    await jobs.check(await cluster.ended(id));
    cluster.points.release("worker.map.before-upload");
    await until("no object of the job", () => !hasObjects(cluster, id));
  });
});

function hasObjects(cluster: FaultyCluster, id: string): boolean {
  return existsSync(join(cluster.dir, "store", "dfs-intermediate", id));
}

describe("a map output that won", () => {
  const REDUCES = 5;
  const damages: [what: string, damage: (path: string) => void][] = [
    ["deleted", (path) => rmSync(path)],
    [
      "corrupted",
      (path) => {
        const bytes = readFileSync(path);
        // In every segment: the one that is still to be read may be any. The index stays whole.
        const end = bytes.length - REDUCES * INDEX_ENTRY_BYTES;
        for (let at = 20; at < end; at += 50) bytes[at] = (bytes[at] ?? 0) ^ 1;
        writeFileSync(path, bytes);
      },
    ],
    ["truncated", (path) => writeFileSync(path, readFileSync(path).subarray(0, 100))],
  ];
  for (const [what, damage] of damages)
    it(`is ${what}: its map task alone runs again`, async () => {
      await using cluster = await useFaultyCluster({ workers: 2 });
      const jobs = await KnownJobs.prepare(cluster.client, { seed: 8, lines: 2_000 });
      for (const kind of ["count", "nonces"] as const) {
        cluster.points.arm("worker.reduce.before-read", "wait @ 2");
        const id = await cluster.submit(jobs.request(kind, { maps: 4, reduces: REDUCES }));
        await cluster.points.hit("worker.reduce.before-read");
        // A reduce task or more is done with the old output by then.
        const before = await until("a reduce task done", async () => {
          const won = await winners(cluster, id);
          return won.size > 4 && won;
        });
        const folder = join(cluster.dir, "store", "dfs-intermediate", id, "map");
        const victim = readdirSync(folder).toSorted()[1] ?? "";
        damage(join(folder, victim));
        cluster.points.release("worker.reduce.before-read");
        const job = await cluster.ended(id);
        await jobs.check(job);
        assert.equal(job.attempts.failed, 0);
        const after = await winners(cluster, id);
        for (const [task, attempt] of before) {
          const again = task === "m-00001" || (kind === "nonces" && task.startsWith("r"));
          if (again) assert.notEqual(after.get(task), attempt, `${kind}: ${task} is what it was`);
          else assert.equal(after.get(task), attempt, `${kind}: ${task} ran again`);
        }
      }
    });
});
