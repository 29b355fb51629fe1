import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { EtcdCoordinator } from "../../internal/coordination/etcd/etcd_coordinator.ts";
import { SqliteCoordinator } from "../../internal/coordination/sqlite/sqlite_coordinator.ts";
import type { Coordinator } from "../../internal/model/coordinator.ts";
import { MrError } from "../../internal/model/errors.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { useEtcd } from "../support/servers.ts";

/** Each test takes coordinators of a space that no other test shares. */
interface Backend extends AsyncDisposable {
  open(space: string): Coordinator;
}

const TTL_MS = 1_000;

async function sqliteBackend(): Promise<Backend> {
  const folder = await scratchFolder("sqlite");
  return {
    open: (space) => new SqliteCoordinator({ file: `${folder.path}/${space}.db`, ttlMs: TTL_MS }),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

async function etcdBackend(): Promise<Backend> {
  const etcd = await useEtcd();
  return {
    open: (space) =>
      new EtcdCoordinator({ address: etcd.address, prefix: `${space}/`, ttlMs: TTL_MS }),
    [Symbol.asyncDispose]: () => etcd[Symbol.asyncDispose](),
  };
}

const candidate = (id: string) => ({ id, address: "127.0.0.1:1", pid: 1 });
const never = () => new AbortController().signal;

async function records(coordinator: Coordinator, prefix: string) {
  return Array.fromAsync(coordinator.list(prefix));
}

for (const [name, start] of [
  ["sqlite", sqliteBackend],
  ["etcd", etcdBackend],
] as const) {
  describe(`Coordinator on ${name}`, () => {
    let backend: Backend;
    const opened: Coordinator[] = [];
    const open = (space: string) => {
      const coordinator = backend.open(space);
      opened.push(coordinator);
      return coordinator;
    };
    before(async () => {
      backend = await start();
    });
    after(async () => {
      for (const coordinator of opened) await coordinator.close();
      await backend[Symbol.asyncDispose]();
    });

    it("elects one leader and tells who it is", async () => {
      const [a, b] = [open("elect"), open("elect")];
      assert.equal(await a.leader(), undefined);
      const term = await a.campaign(candidate("a"), never());
      assert.equal(term.valid(), true);
      assert.deepEqual(await b.leader(), { ...candidate("a"), epoch: term.epoch });
      const other = new AbortController();
      const waiting = b.campaign(candidate("b"), other.signal);
      other.abort();
      await assert.rejects(waiting, (error) => MrError.is(error, "aborted"));
      await term.resign();
    });

    it("hands over on resignation, with a higher epoch", async () => {
      const [a, b] = [open("resign"), open("resign")];
      const first = await a.campaign(candidate("a"), never());
      const next = b.campaign(candidate("b"), never());
      await first.resign();
      assert.equal(first.over.aborted, true);
      const second = await next;
      assert.ok(second.epoch > first.epoch);
      assert.equal((await a.leader())?.id, "b");
      await second.resign();
    });

    it("keeps a leader that renews, for longer than its lease", async () => {
      const [a, b] = [open("renew"), open("renew")];
      const term = await a.campaign(candidate("a"), never());
      const stop = new AbortController();
      const rival = b.campaign(candidate("b"), stop.signal).catch(() => "called off");
      const startMs = performance.now();
      await until("three lease times", () => performance.now() - startMs > 3 * TTL_MS);
      assert.equal(term.valid(), true);
      assert.equal((await b.leader())?.id, "a");
      stop.abort();
      assert.equal(await rival, "called off");
      await term.resign();
    });

    it("replaces a leader that vanished, and refuses its writes", async () => {
      const [a, b] = [open("vanish"), open("vanish")];
      const first = await a.campaign(candidate("a"), never());
      await first.commit([{ key: "job/x", value: "1" }]);
      const stolen = await steal(first, b);
      assert.ok(stolen.epoch > first.epoch);
      await stolen.commit([{ key: "job/x", value: "2" }]);
      await assert.rejects(first.commit([{ key: "job/x", value: "stale" }]), (error) =>
        MrError.is(error, "fenced"),
      );
      assert.equal(first.over.aborted, true);
      assert.deepEqual(await records(b, "job/"), [{ key: "job/x", value: "2" }]);
      await stolen.resign();
    });

    it("commits all or nothing, and takes a repeat", async () => {
      const a = open("commit");
      const term = await a.campaign(candidate("a"), never());
      const batch = Array.from({ length: 100 }, (_, i) => ({ key: `k/${i}`, value: `v${i}` }));
      await term.commit(batch);
      await term.commit(batch);
      assert.equal((await records(a, "k/")).length, 100);
      await term.commit(batch.map(({ key }) => ({ key, value: undefined })));
      assert.deepEqual(await records(a, "k/"), []);
      await term.resign();
      await assert.rejects(term.commit([{ key: "k/1", value: "late" }]), (error) =>
        MrError.is(error, "fenced"),
      );
      assert.deepEqual(await records(a, "k/"), []);
    });

    it("lists by prefix, in order, over many pages, with any text", async () => {
      const a = open("list");
      const term = await a.campaign(candidate("a"), never());
      const keys = Array.from({ length: 2_345 }, (_, i) => `p/${String(i).padStart(5, "0")}`);
      for (let from = 0; from < keys.length; from += 100)
        await term.commit(keys.slice(from, from + 100).map((key) => ({ key, value: `ü-${key}` })));
      await term.commit([
        { key: "o/1", value: "x" },
        { key: "p0", value: "x" },
        { key: "q/1", value: "x" },
      ]);
      assert.deepEqual(
        await records(a, "p/"),
        keys.map((key) => ({ key, value: `ü-${key}` })),
      );
      await term.resign();
    });

    it("hints at a change of leader", async () => {
      const [a, b] = [open("watch"), open("watch")];
      let hints = 0;
      const first = await a.campaign(candidate("a"), never());
      using _watch = b.watchLeader(() => {
        hints += 1;
      });
      // A watch may take a while to stand: keep changing until it tells.
      let term = first;
      await until("a hint", async () => {
        await term.resign();
        term = await a.campaign(candidate("a"), never());
        return hints > 0;
      });
      await term.resign();
    });
  });
}

/** Makes `term` a leader whose process stands still, and returns its successor. */
async function steal(term: { epoch: number }, rival: Coordinator) {
  // Its renewals stop as those of a stopped process would; nothing else of it changes.
  clearInterval((term as unknown as { timer: NodeJS.Timeout }).timer);
  return rival.campaign(candidate("b"), never());
}
