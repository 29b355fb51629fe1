import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { type ObjectStore, readAll } from "../../internal/model/object_store.ts";
import { AzureStore } from "../../internal/storage/azure/azure_store.ts";
import { seeded } from "../support/corpus.ts";
import { FaultyHttp, type HttpFault } from "../support/fault_proxies.ts";
import { useFaultyCluster } from "../support/faulty_cluster.ts";
import { JOB_KINDS, KnownJobs } from "../support/known_jobs.ts";
import { until } from "../support/processes.ts";
import { type TestServer, useAzurite } from "../support/servers.ts";

describe("a request to Blob", () => {
  let azurite: TestServer & { connectionString: string };
  let proxy: FaultyHttp;
  let store: ObjectStore;

  before(async () => {
    azurite = await useAzurite();
    const port = Number(/127\.0\.0\.1:(\d+)/.exec(azurite.connectionString)?.[1]);
    proxy = await FaultyHttp.open(port);
    const connection = azurite.connectionString.replace(String(port), String(proxy.port));
    store = new AzureStore(connection, { patienceMs: 20_000, idleMs: 300 });
    await store.ensureContainer("box");
  });
  after(async () => {
    await proxy[Symbol.asyncDispose]();
    await azurite[Symbol.asyncDispose]();
  });

  /** The first requests with this method and part of the URL fail like this. */
  function failFirst(times: number, method: string, part: string, fault: HttpFault): () => number {
    let left = times;
    proxy.rule = (req) => {
      if (left === 0 || req.method !== method || !(req.url ?? "").includes(part)) return undefined;
      left -= 1;
      return fault;
    };
    return () => times - left;
  }

  it("that creates only, and whose reply is lost, knows its own object again", async () => {
    const failed = failFirst(1, "PUT", "mine", { kind: "lose-reply" });
    assert.equal(await store.create("box", "mine", Buffer.from("1")), "created");
    assert.equal(failed(), 1);
    assert.equal(await store.create("box", "mine", Buffer.from("2")), "exists");
  });

  it("that stages or publishes, and whose reply is lost, is done once", async () => {
    for (const part of ["comp=block&", "comp=blocklist"]) {
      const failed = failFirst(2, "PUT", part, { kind: "lose-reply" });
      const staged = await store.stage("box", "part", `job/${part.length}`);
      await staged.write(Buffer.from(part));
      await store.publish(await staged.seal());
      assert.equal(failed(), 2, part);
      assert.equal((await readAll(store.read("box", "part"))).toString(), part);
    }
  });

  it("whose body breaks off or stalls is resumed, and nothing is missing or twice", async () => {
    const random = seeded(1);
    const bytes = Buffer.from(Uint8Array.from({ length: 3_000_000 }, () => random() * 256));
    proxy.rule = () => undefined;
    const { etag } = await store.put("box", "big", [bytes] as never);
    for (const kind of ["break-body", "stall-body"] as const) {
      const failed = failFirst(4, "GET", "big", { kind, bytes: 400_000 });
      const read = await readAll(store.read("box", "big", { start: 1_000, etag }));
      assert.equal(failed(), 4);
      assert.ok(read.equals(bytes.subarray(1_000)), kind);
    }
  });

  it("that meets 503 or 500 is tried again", async () => {
    for (const status of [503, 500]) {
      const failed = failFirst(5, "GET", "mine", { kind: "status", status });
      assert.equal((await readAll(store.read("box", "mine"))).toString(), "1");
      assert.equal(failed(), 5);
      failFirst(3, "GET", "comp=list", { kind: "status", status });
      const names: string[] = [];
      for await (const { name } of store.list("box", "mi")) names.push(name);
      assert.deepEqual(names, ["mine"]);
    }
  });

  it("gives up at once when its caller does", async () => {
    proxy.rule = () => ({ kind: "status", status: 503 });
    const stop = new AbortController();
    const reading = readAll(store.read("box", "mine", { signal: stop.signal }));
    const seen = proxy.requests;
    await until("a request", () => proxy.requests > seen);
    stop.abort();
    await assert.rejects(reading);
    proxy.rule = () => undefined;
  });
});

describe("Blob storage", () => {
  it("answers nothing but 503 for longer than a lease: no attempt is lost or charged", async () => {
    await using cluster = await useFaultyCluster({ workers: 3, remote: true });
    const { storage } = cluster.parts;
    assert.ok(storage);
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 1, lines: 300 });
    const ids = await Promise.all(
      JOB_KINDS.map((kind) => cluster.submit(jobs.request(kind, { maps: 8, sleep: 0.2 }))),
    );
    await until("work under way", async () => {
      const { workers } = await cluster.client.json<{ workers: { attempts: string[] }[] }>(
        "/workers",
      );
      return workers.every(({ attempts }) => attempts.length > 0);
    });
    const outageMs = Number(process.env.MR_OUTAGE_MS ?? 8_000);
    storage.rule = () => ({ kind: "status", status: 503 });
    const over = new AbortController();
    setTimeout(() => over.abort(), outageMs);
    await once(over.signal, "abort");
    storage.rule = () => undefined;
    for (const id of ids) {
      const job = await cluster.ended(id);
      await jobs.check(job);
      assert.deepEqual(job.attempts, { failed: 0, lost: 0 });
    }
  });

  it("fails every fifth request, loses replies and breaks bodies all the time", async () => {
    await using cluster = await useFaultyCluster({ workers: 3, remote: true });
    const { storage } = cluster.parts;
    assert.ok(storage);
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 2, lines: 2_000 });
    const random = seeded(3);
    const faults: HttpFault[] = [
      { kind: "status", status: 503 },
      { kind: "status", status: 500 },
      { kind: "lose-reply" },
      { kind: "break-body", bytes: 1_000 },
    ];
    const flaky = () => (random() < 0.2 ? faults[Math.floor(random() * faults.length)] : undefined);
    for (const kind of JOB_KINDS) {
      storage.rule = flaky;
      const job = await cluster.ended(await cluster.submit(jobs.request(kind)));
      storage.rule = () => undefined;
      await jobs.check(job);
      assert.equal(job.attempts.failed, 0);
    }
  });
});
