import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Etcd3 } from "etcd3";
import { EtcdCoordinator } from "../../internal/coordination/etcd/etcd_coordinator.ts";
import type { Leadership, RecordWrite } from "../../internal/model/coordinator.ts";
import { seeded } from "../support/corpus.ts";
import { FaultyLink } from "../support/fault_proxies.ts";
import {
  checkWinners,
  type FaultyCluster,
  someTasksDone,
  useFaultyCluster,
} from "../support/faulty_cluster.ts";
import { KnownJobs } from "../support/known_jobs.ts";
import { until } from "../support/processes.ts";
import { useEtcd } from "../support/servers.ts";

const SELF = { id: "me", address: "127.0.0.1:1", pid: 1 };
const signal = new AbortController().signal;

async function useLinkedEtcd() {
  const stack = new AsyncDisposableStack();
  const etcd = stack.use(await useEtcd());
  const link = stack.use(await FaultyLink.open(Number(new URL(etcd.address).port)));
  const open = (through: boolean) => {
    const address = through ? `http://127.0.0.1:${link.port}` : etcd.address;
    const coordinator = new EtcdCoordinator({ address, ttlMs: 20_000 });
    stack.defer(() => coordinator.close());
    return coordinator;
  };
  return { etcd, link, open, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function recordsOf(coordinator: EtcdCoordinator): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { key, value } of coordinator.list("job/")) found[key] = value;
  return found;
}

describe("a commit", () => {
  it("whose reply is lost is repeated, and counts once", async () => {
    await using server = await useLinkedEtcd();
    const coordinator = server.open(true);
    const term = await coordinator.campaign(SELF, signal);
    const direct = server.open(false);
    let tries = 0;
    await until("a commit that landed and whose reply was lost", async () => {
      tries += 1;
      await term.commit([{ key: `job/${tries}/spec`, value: "a" }]);
      server.link.break("deaf");
      const writes = [
        { key: `job/${tries}/done/m-00000`, value: "winner" },
        { key: `job/${tries}/spec`, value: undefined },
      ];
      await assert.rejects(term.commit(writes), { code: "unavailable" });
      const landed = `job/${tries}/done/m-00000` in (await recordsOf(direct));
      server.link.mend();
      await until("etcd again", () => committed(term, writes));
      return landed;
    });
    assert.ok(term.valid());
    const records = await recordsOf(coordinator);
    assert.deepEqual(
      Object.keys(records),
      Array.from({ length: tries }, (_, i) => `job/${i + 1}/done/m-00000`).toSorted(),
    );
    await term.resign();
  });
});

describe("a commit that etcd will always refuse", () => {
  it("is told apart from one that may be repeated", async () => {
    await using server = await useLinkedEtcd();
    const tooMuch: RecordWrite[][] = [
      [{ key: "job/1/spec", value: "x".repeat(1_800_000) }],
      [{ key: "job/1/spec", value: "x".repeat(3_000_000) }],
      Array.from({ length: 200 }, (_, i) => ({ key: `job/${i}`, value: "x" })),
    ];
    for (const writes of tooMuch) {
      const term = await server.open(false).campaign(SELF, signal);
      await assert.rejects(term.commit(writes), { code: "internal" });
      await term.resign();
    }
  });
});

function committed(term: Leadership, writes: RecordWrite[]): Promise<boolean> {
  return term.commit(writes).then(
    () => true,
    () => false,
  );
}

describe("an election", () => {
  it("whose replies are lost at any moment ends with one leader, who knows it", async () => {
    await using server = await useLinkedEtcd();
    const other = server.open(false);
    const random = seeded(1);
    for (let round = 0; round < 5; round += 1) {
      const coordinator = server.open(true);
      let left = 12;
      const trouble = setInterval(() => {
        left -= 1;
        if (left > 0 && random() < 0.5) server.link.break("deaf");
        else server.link.mend();
        if (left === 0) clearInterval(trouble);
      }, 40);
      const term = await coordinator.campaign(SELF, signal);
      clearInterval(trouble);
      server.link.mend();
      assert.equal((await other.leader())?.epoch, term.epoch);
      await until("a commit", () => committed(term, [{ key: "job/1/spec", value: "a" }]));
      await term.resign();
    }
  });

  it("needs no watch: it is cut off in the middle, and etcd has compacted what it missed", async () => {
    await using server = await useLinkedEtcd();
    const first = await server.open(false).campaign(SELF, signal);
    const waiting = server.open(true).campaign({ ...SELF, id: "next" }, signal);
    using client = disposable(new Etcd3({ hosts: server.etcd.address }));
    for (let i = 0; i < 20; i += 1) {
      server.link.break("reset");
      await first.commit([{ key: `job/${i}/spec`, value: "a" }]);
      server.link.mend();
    }
    server.link.break("cut-down");
    await first.resign();
    const { header } = await client.client.get("x").exec();
    await client.client.kv.compact({ revision: header.revision, physical: true });
    server.link.mend();
    const next = await waiting;
    assert.ok(next.epoch > first.epoch);
    await assert.rejects(first.commit([{ key: "job/x", value: "late" }]), { code: "fenced" });
    await next.resign();
  });
});

function disposable(client: Etcd3) {
  return { client, [Symbol.dispose]: () => client.close() };
}

/** A submission that is refused for now, as a client sees it. */
async function refusedSubmission(cluster: FaultyCluster, request: object): Promise<string> {
  const response = await fetch(`${cluster.url}/request`, {
    method: "POST",
    headers: { prefer: "respond-async", "idempotency-key": "again" },
    body: JSON.stringify(request),
  });
  const text = await response.text();
  assert.equal(response.status, 503, text);
  assert.match(response.headers.get("retry-after") ?? "", /^\d+$/);
  assert.match(response.headers.get("content-type") ?? "", /problem\+json/);
  return text;
}

describe("etcd", () => {
  it("stands still: nothing is acknowledged, submissions are told when to come again, all resumes", async () => {
    await using cluster = await useFaultyCluster({ masters: 2, workers: 2, remote: true });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 1, lines: 300 });
    const id = await cluster.submit(jobs.request("nonces", { maps: 12, sleep: 0.5 }));
    const won = await someTasksDone(cluster, id);
    await cluster.parts.etcd?.process.freeze();
    await refusedSubmission(cluster, jobs.request("count"));
    await delay(Number(process.env.MR_OUTAGE_MS ?? 0));
    cluster.parts.etcd?.process.signal("SIGCONT");
    const job = await cluster.ended(id);
    await jobs.check(job);
    await checkWinners(cluster, id, won);
    assert.equal(job.attempts.failed, 0);
    const again = { "idempotency-key": "again" };
    await jobs.check(await cluster.ended(await cluster.submit(jobs.request("count"), again)));
  });

  it("has no space left: said so, and all resumes when it has", async () => {
    const etcdArgs = ["--quota-backend-bytes", String(4 * 1024 * 1024)];
    await using cluster = await useFaultyCluster({
      masters: 2,
      workers: 2,
      remote: true,
      etcdArgs,
    });
    const jobs = await KnownJobs.prepare(cluster.client, { seed: 2, lines: 300 });
    const id = await cluster.submit(jobs.request("nonces", { maps: 12, sleep: 0.5 }));
    const won = await someTasksDone(cluster, id);
    using etcd = disposable(new Etcd3({ hosts: cluster.parts.etcd?.address ?? "" }));
    const fill = async () => {
      for (let i = 0; i < 100; i += 1)
        await etcd.client.put(`fill/${i}`).value("x".repeat(200_000));
    };
    await assert.rejects(fill(), /space exceeded/);
    assert.match(await refusedSubmission(cluster, jobs.request("count")), /space exceeded/);
    const { header } = await etcd.client.delete().prefix("fill/").exec();
    await etcd.client.kv.compact({ revision: header.revision, physical: true });
    await etcd.client.maintenance.defragment();
    const { maintenance } = etcd.client;
    const { alarms } = await maintenance.alarm({ action: "Get", memberID: 0, alarm: "None" });
    for (const { memberID } of alarms)
      await maintenance.alarm({ action: "Deactivate", memberID, alarm: "Nospace" });
    const job = await cluster.ended(id);
    await jobs.check(job);
    await checkWinners(cluster, id, won);
  });
});
