import assert from "node:assert/strict";
import { connect } from "node:http2";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { JobJson } from "../../cmd/mr/client.ts";
import type { AttemptId } from "../../internal/model/ids.ts";
import { mapOutputName } from "../../internal/model/task.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { outputOf, runJob, type TestCluster } from "../support/cluster.ts";
import { HostileCluster } from "../support/hostile_cluster.ts";
import { until } from "../support/processes.ts";
import { head, quietly } from "../support/raw_rpc.ts";
import { RawWorker } from "../support/raw_worker.ts";

const MB = 1024 * 1024;
const STATS = {
  recordsIn: 1n,
  bytesIn: 1n,
  recordsOut: 1n,
  bytesOut: 1n,
  wallMs: 1n,
  counters: {},
};

describe("a leader and a worker that lies", () => {
  let hostile: HostileCluster;
  let cluster: TestCluster;
  let leader: HostileCluster["leader"];
  before(async () => {
    hostile = await HostileCluster.start();
    ({ cluster, leader } = hostile);
  });
  after(() => hostile[Symbol.asyncDispose]());

  async function waitingJob(more: object = {}): Promise<JobJson> {
    const request = { mapper: "/bin/sleep 60", data: "text", m_num: 3, r_num: 0, ...more };
    const job = await cluster.client.json<JobJson>("/request", {
      method: "POST",
      headers: { prefer: "respond-async" },
      body: JSON.stringify(request),
    });
    await until("its tasks", async () => {
      const { state } = await cluster.client.json<JobJson>(`/jobs/${job.id}`);
      return state === "map";
    });
    return job;
  }

  it("is not told what has no bound", async () => {
    const attempt = "20260101-000000-aaaaaa/m-00000/1-1";
    const part = { container: "dfs-dest", name: "x", size: 5n, token: "t" };
    const completed = (more: object, stats: object = STATS) => ({
      case: "completed" as const,
      value: { attempt, output: { output: { case: "part", value: { ...part, ...more } } }, stats },
    });
    const segments = (more: object) => {
      const value = { object: "o", size: 10n, indexOffset: 5n, digest: "d", sizes: "", ...more };
      const output = { output: { case: "segments", value } };
      return { case: "completed" as const, value: { attempt, output, stats: STATS } };
    };
    const beat = (more: object) => {
      const entry = { attempt, bytesIn: 0n, bytesTotal: 0n, status: "", counters: {}, ...more };
      return { case: "heartbeat" as const, value: { seq: 1n, attempts: [entry] } };
    };
    const beats = (count: number, more: object) => {
      const [entry] = beat(more).value.attempts;
      return { case: "heartbeat" as const, value: { seq: 1n, attempts: Array(count).fill(entry) } };
    };
    const counters = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`c${i}`, 1n]));
    const failed = (more: object) => {
      const value = { attempt, class: "user", message: "", logTail: "", lostOutputs: [], ...more };
      return { case: "failed" as const, value };
    };
    const many = (count: number) => Array.from({ length: count }, () => attempt);
    const lies = {
      "a host": { hello: { host: "h".repeat(3 * MB) } },
      "a host with an escape": { hello: { host: "\u001b[2J" } },
      "an id": { hello: { workerId: "w".repeat(300) } },
      "a pid": { hello: { pid: -1 } },
      slots: { hello: { slots: 100_000 } },
      reduces: { hello: { reducesPerSlot: 10_000 } },
      "less than nothing, twice": { hello: { slots: -5, reducesPerSlot: -3 } },
      "more attempts than there may be": {
        say: {
          case: "heartbeat",
          value: { seq: 1n, attempts: Array(30_000).fill(beat({}).value.attempts[0]) },
        },
      },
      "attempts it announces": { hello: { attempts: many(1_000) } },
      "an attempt's name": { hello: { attempts: ["../x"] } },
      "free slots": { say: { case: "ready", value: { free: -1, grantsSeen: 0, ahead: 0 } } },
      "a heartbeat": { say: beat({ bytesIn: -5n }) },
      "a heartbeat's number": { say: { case: "heartbeat", value: { seq: -1n, attempts: [] } } },
      figures: { say: completed({}, { ...STATS, recordsIn: -5n }) },
      "time taken": { say: completed({}, { ...STATS, wallMs: -1n }) },
      "bytes out": { say: completed({}, { ...STATS, bytesOut: 2n ** 60n }) },
      "a size": { say: completed({ size: -1n }) },
      "a token": { say: completed({ token: "t".repeat(1_000) }) },
      "a token's characters": { say: completed({ token: "a\u0000b" }) },
      "a part's name": { say: completed({ name: "../../x" }) },
      "a part's container": { say: completed({ container: "X" }) },
      "an index": { say: segments({ indexOffset: 11n }) },
      "an object's size": { say: segments({ size: -1n, indexOffset: -1n }) },
      "an object's name": { say: segments({ object: "/etc/passwd" }) },
      "a digest": { say: segments({ digest: "\u001b".repeat(10) }) },
      "sizes of segments": { say: segments({ sizes: "A".repeat(2_000) }) },
      "bad records": {
        say: {
          case: "completed",
          value: { ...completed({}).value, bad: { records: -1n, part } },
        },
      },
      "a failure's class": { say: failed({ class: "mine" }) },
      "a class that is cut in half a character": { say: failed({ class: `${"x".repeat(49)}😀` }) },
      "lost outputs": { say: failed({ lostOutputs: many(20_000) }) },
      "more attempts than it may hold": { say: beats(9, {}) },
      "counters without end": { say: beats(1, { counters: counters(30_000) }) },
      nothing: { say: { case: undefined } },
    };
    for (const [what, lie] of Object.entries(lies)) {
      const heard = delay(10_000, "not refused", { ref: false });
      using worker = new RawWorker(leader.address);
      worker.hello("liar-1", "hello" in lie ? lie.hello : {});
      if ("say" in lie) worker.say(lie.say as never);
      const why = decodeURIComponent(await Promise.race([worker.ended, heard]));
      assert.match(why, /^session: /, `${what}: ${why}`);
    }
    await hostile.staysAsItWas();
  });

  it("takes no work from whom it gave none", async () => {
    const { id } = await waitingJob();
    using worker = new RawWorker(leader.address);
    worker.hello("forger-1", { attempts: [`${id}/m-00002/0-3`] });
    const value = { container: "dfs-dest", name: `${id}/part-00002`, size: 5n, token: "forged" };
    const output = { output: { case: "part" as const, value } };
    const names = [`0-3`, "999-999", `${leader.epoch}-999`, `${leader.epoch}-1`];
    for (const name of names) {
      const attempt = `${id}/m-00002/${name}`;
      worker.say({ case: "completed", value: { attempt, output, stats: STATS } });
    }
    await until("answers", () => worker.heard.filter((m) => m.case === "settled").length === 4);
    for (const message of worker.heard)
      if (message.case === "settled") assert.equal(message.value.won, false);
    const { map } = await cluster.client.json<JobJson>(`/jobs/${id}`);
    assert.equal(map.done, 0);
    await cluster.client.json(`/jobs/${id}`, { method: "DELETE" });
    await hostile.staysAsItWas();
  });

  /** What a worker that was granted a task of a job says it has made of it. */
  async function runWithLie(token: (id: string) => string): Promise<JobJson> {
    const worker = new RawWorker(leader.address);
    worker.hello("thief-1", { slots: 1 });
    worker.say({ case: "ready", value: { free: 1, grantsSeen: 0, ahead: 0 } });
    const request = { mapper: "cat", data: "text", m_num: 2, r_num: 0 };
    const running = runJob(cluster.client, request);
    const grant = await until("a grant", () => {
      const found = worker.heard.find((message) => message.case === "grant");
      return found?.case === "grant" ? found.value : undefined;
    });
    const [id = "", task = ""] = grant.attempt.split("/");
    const name = `${id}/part-${task.slice(2)}`;
    const value = { container: "dfs-dest", name, size: 5n, token: token(id) };
    worker.say({
      case: "completed",
      value: {
        attempt: grant.attempt,
        output: { output: { case: "part", value } },
        stats: STATS,
      },
    });
    worker.say({ case: "goodbye", value: {} });
    const job = await running;
    worker[Symbol.dispose]();
    return job;
  }

  it("has a task done again whose part was never staged", async () => {
    const job = await runWithLie((id) => `${id}/00000000-0000-0000-0000-000000000000`);
    assert.equal(job.state, "succeeded", JSON.stringify(job));
    assert.equal(String(await outputOf(cluster.client, job.id)), "b\na\n");
  });

  it("takes no map output with an index of keys that is longer than any", async () => {
    using worker = new RawWorker(leader.address);
    worker.hello("weaver-1", { slots: 1 });
    worker.say({ case: "ready", value: { free: 1, grantsSeen: 0, ahead: 0 } });
    const request = { mapper: "cat", reducer: "cat", data: "text", m_num: 2, r_num: 2 };
    const running = runJob(cluster.client, { ...request, partitioner: "range" });
    const grant = await until("a grant", () => {
      const found = worker.heard.find((message) => message.case === "grant");
      return found?.case === "grant" ? found.value : undefined;
    });
    const object = mapOutputName(grant.attempt as AttemptId);
    const value = { object, size: BigInt(1_200 * MB), indexOffset: 0n, digest: "", sizes: "AAAA" };
    const output = { output: { case: "segments" as const, value } };
    worker.say({ case: "completed", value: { attempt: grant.attempt, output, stats: STATS } });
    const settled = await until("an answer", () =>
      worker.heard.find((message) => message.case === "settled"),
    );
    assert.ok(settled.case === "settled" && !settled.value.won);
    worker.say({ case: "goodbye", value: {} });
    const job = await running;
    assert.equal(job.state, "succeeded", JSON.stringify(job));
    await hostile.staysAsItWas();
  });

  it("publishes nothing that others have staged, by whatever token", async () => {
    const store = new LocalStore(join(cluster.dir, "store"));
    for (const lie of [(token: string) => token, (token: string) => token.split("/")[0] ?? ""]) {
      const staged = await store.stage("dfs-dest", "theirs", "put");
      await staged.write(Buffer.from("a secret\n"));
      const receipt = await staged.seal();
      const job = await runWithLie(() => lie(receipt.token));
      assert.equal(job.state, "succeeded", JSON.stringify(job));
      assert.equal(String(await outputOf(cluster.client, job.id)), "b\na\n");
      await store.publish(receipt);
    }
  });

  it("holds no more of halves of messages than it has set aside", async () => {
    const beforeMb = hostile.memoryMb();
    const half = Buffer.alloc(1.75 * MB);
    const workers = Array.from({ length: 80 }, () => {
      const worker = new RawWorker(leader.address);
      const head = Buffer.alloc(5);
      head.writeUInt32BE(2 * MB, 1);
      worker.stream.write(head);
      worker.stream.write(half);
      return worker;
    });
    const refused = workers.map(({ ended }) => ended.then((why) => why !== ""));
    const firstOne = await Promise.race(refused);
    assert.equal(firstOne, true);
    await until("most to be refused", async () => {
      const open = workers.filter(({ stream }) => !stream.closed && !stream.destroyed);
      return open.length <= 45;
    });
    assert.ok(hostile.memoryMb() - beforeMb < 250, `${beforeMb} -> ${hostile.memoryMb()} MB`);
    for (const worker of workers) worker[Symbol.dispose]();
    await hostile.staysAsItWas();
  });

  it("leaves a worker that does not read what it is told", async () => {
    const beforeMb = hostile.memoryMb();
    using worker = new RawWorker(leader.address, { reads: false });
    worker.hello("deaf-1", { slots: 3_000 });
    const attempts = Array.from({ length: 1_000 }, (_, i) => ({
      ...{ attempt: `20260101-000000-aaaaaa/m-00000/1-${i}`, bytesIn: 0n, bytesTotal: 0n },
      ...{ status: "", counters: {} },
    }));
    const beat = RawWorker.frame({ case: "heartbeat", value: { seq: 1n, attempts } });
    for (let i = 0; i < 5_000 && !worker.stream.destroyed; i += 1)
      await Promise.race([
        new Promise((resolve) => worker.stream.write(beat, resolve)),
        worker.ended,
      ]);
    assert.ok(hostile.memoryMb() - beforeMb < 400, `${beforeMb} -> ${hostile.memoryMb()} MB`);
    await until("it to be left", async () => {
      const { workers } = await cluster.client.json<{ workers: { id: string; state: string }[] }>(
        "/workers",
      );
      return !workers.some(({ id, state }) => id === "deaf-1" && state === "connected");
    });
    await hostile.staysAsItWas();
  });

  it("is told who somebody is, or leaves him", async () => {
    const connection = quietly(leader.address);
    const silent = Array.from({ length: 20 }, () => new RawWorker(leader.address, { connection }));
    const reasons = await Promise.all(silent.map(({ ended }) => ended));
    const said = reasons.map((reason) => decodeURIComponent(reason));
    assert.equal(said.filter((why) => why === "session: nobody says hello").length, 16);
    assert.equal(said.filter((why) => /^session: 16 workers/.test(why)).length, 4);
    // What has been left makes room.
    const worker = new RawWorker(leader.address, { connection });
    worker.hello("late-1");
    await until("a welcome", () => worker.heard.some((message) => message.case === "welcome"));
    worker[Symbol.dispose]();
    await hostile.staysAsItWas();
  });

  it("does not decode what no worker would say", async () => {
    using worker = new RawWorker(leader.address);
    worker.hello("noise-1");
    await until("a welcome", () => worker.heard.some((message) => message.case === "welcome"));
    // Fields that nobody knows, of two bytes each.
    worker.stream.write(head(MB));
    worker.stream.write(Buffer.alloc(MB, Buffer.from([0x78, 0x00])));
    assert.match(decodeURIComponent(await worker.ended), /^session: a message of too many/);
    await hostile.staysAsItWas();
  });

  it("lets its health be watched by some, not by all the world", async () => {
    const connection = connect(`http://${leader.address}`);
    connection.on("error", () => undefined);
    let refused = 0;
    const asked = Array.from({ length: 500 }, () => {
      const stream = connection.request({
        ":method": "POST",
        ":path": "/grpc.health.v1.Health/Watch",
        "content-type": "application/grpc+proto",
        te: "trailers",
      });
      stream.on("error", () => undefined);
      stream.on("trailers", (trailers) => {
        if (trailers["grpc-status"] === "8") refused += 1;
      });
      stream.resume();
      stream.end(Buffer.alloc(5));
      return stream;
    });
    await until("refusals", () => refused >= 400);
    for (const stream of asked) stream.close();
    connection.destroy();
    await hostile.staysAsItWas();
  });
});
