import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkWinners, someTasksDone, TIMES, useFaultyCluster } from "../support/faulty_cluster.ts";
import { JOB_KINDS, KnownJobs } from "../support/known_jobs.ts";
import { until } from "../support/processes.ts";

const TTL_MS = Number(TIMES.MR_LEADER_TTL_MS);

describe("a leader", () => {
  it("dies at every point of a job's life", async () => {
    await using cluster = await useFaultyCluster({ masters: 3, workers: 3, remote: true });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 1, lines: 300 });
    for (const [point, nth] of [
      ["master.commit.before", 1],
      ["master.commit.before", 4],
      ["master.commit.after", 1],
      ["master.commit.after", 4],
      ["master.publish.before-part", 1],
      ["master.publish.after-part", 2],
      ["master.publish.before-marker", 1],
      ["master.publish.after-marker", 1],
      ["master.sweep.before", 1],
    ] as const) {
      const before = await cluster.leader();
      cluster.points.arm(point, `kill@${nth}`);
      const id = await cluster.submit(jobs.request("nonces", { maps: 4, reduces: 3 }));
      assert.equal(await cluster.points.hit(point), before.pid, `${point} @ ${nth}`);
      await jobs.check(await cluster.ended(id));
    }
  });

  it("dies while it takes over", async () => {
    await using cluster = await useFaultyCluster({ masters: 3 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 2, lines: 300 });
    const id = await cluster.submit(jobs.request("count", { sleep: 0.5 }));
    const won = await someTasksDone(cluster, id);
    const first = await cluster.leader();
    cluster.points.arm("master.takeover.read", "kill");
    process.kill(first.pid, "SIGKILL");
    await cluster.points.hit("master.takeover.read");
    await jobs.check(await cluster.ended(id));
    await checkWinners(cluster, id, won);
  });

  it("stands still for three lease times and acknowledges nothing afterwards", async () => {
    await using cluster = await useFaultyCluster({ masters: 3, workers: 3, remote: true });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 3, lines: 300 });
    const id = await cluster.submit(jobs.request("nonces", { maps: 12, sleep: 0.3 }));
    await someTasksDone(cluster, id);
    const old = await cluster.leader();
    // It stops with completions on the way to it, and between a commit and its sending.
    cluster.points.arm("master.commit.before", "stop");
    assert.equal(await cluster.points.hit("master.commit.before"), old.pid);
    const stoppedMs = performance.now();
    const next = await cluster.otherLeader(old);
    await until("three lease times", () => performance.now() - stoppedMs > 3 * TTL_MS);
    process.kill(old.pid, "SIGCONT");
    const name = `master-${old.index + 1}`;
    const said = await until("its stepping down", async () =>
      (await cluster.log(name)).find(
        (line) => line.msg === "the term ends" && line.epoch === old.epoch,
      ),
    );
    assert.match(String(said.reason), /over|deposed/);
    assert.ok((await cluster.leader()).epoch >= next.epoch);
    await jobs.check(await cluster.ended(id));
    // Nobody was granted anything by it any more.
    const late = (await cluster.log(name)).filter(
      (line) => line.msg === "granted" && line.time > said.time && line.pid === old.pid,
    );
    assert.deepEqual(late, []);
  });

  it("is cut off from etcd only: it steps down, and another one goes on", async () => {
    await using cluster = await useFaultyCluster({ masters: 3, workers: 3, remote: true });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 4, lines: 300 });
    for (const fault of ["cut", "cut-up", "cut-down", "reset"] as const) {
      const id = await cluster.submit(jobs.request("nonces", { maps: 8, sleep: 0.3 }));
      const won = await someTasksDone(cluster, id);
      const old = await cluster.leader();
      cluster.parts.etcdLinks[old.index]?.break(fault);
      await cluster.otherLeader(old);
      await jobs.check(await cluster.ended(id));
      await checkWinners(cluster, id, won);
      cluster.parts.etcdLinks[old.index]?.mend();
    }
  });

  it("hands over to its successor, again and again under load, and no attempt is lost", async () => {
    await using cluster = await useFaultyCluster({ masters: 3, workers: 3, remote: true });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 5, lines: 300 });
    const ids = await Promise.all(
      JOB_KINDS.map((kind) => cluster.submit(jobs.request(kind, { maps: 12, sleep: 0.4 }))),
    );
    for (let restarts = 0; restarts < 4; restarts += 1) {
      const old = await cluster.leader();
      process.kill(old.pid, "SIGTERM");
      await cluster.otherLeader(old);
    }
    for (const id of ids) {
      const job = await cluster.ended(id);
      await jobs.check(job);
      assert.deepEqual(job.attempts, { failed: 0, lost: 0 });
    }
  });

  it("sends GOAWAY on every connection, again and again", async () => {
    await using cluster = await useFaultyCluster({ masters: 2 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 6, lines: 300 });
    cluster.points.goaway(true);
    const id = await cluster.submit(jobs.request("count", { sleep: 0.3 }));
    await someTasksDone(cluster, id);
    cluster.points.goaway(false);
    await jobs.check(await cluster.ended(id));
  });

  it("does not care what the wall clock says", async () => {
    await using cluster = await useFaultyCluster({ masters: 2 });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 7, lines: 300 });
    for (const offMs of [3_600_000, -3_600_000]) {
      const id = await cluster.submit(jobs.request("nonces", { maps: 8, sleep: 0.3 }));
      const won = await someTasksDone(cluster, id);
      const before = await cluster.leader();
      cluster.points.setClock(offMs);
      const job = await cluster.ended(id);
      await jobs.check(job);
      await checkWinners(cluster, id, won);
      assert.deepEqual(job.attempts, { failed: 0, lost: 0 });
      assert.equal((await cluster.leader()).epoch, before.epoch);
      cluster.points.setClock(0);
    }
  });
});
