import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { MrError } from "../../internal/model/errors.ts";
import { type ReadOptions, readAll } from "../../internal/model/object_store.ts";
import { Account, serviceFor } from "../../internal/storage/azure/account.ts";
import { AzureStore } from "../../internal/storage/azure/azure_store.ts";
import { Patience } from "../../internal/storage/azure/patience.ts";
import { ReadBudget } from "../../internal/storage/azure/read_ahead.ts";
import { windowedRead } from "../../internal/storage/azure/windowed_read.ts";
import { seeded } from "../support/corpus.ts";
import { FaultyHttp, FaultyLink, type HttpFault } from "../support/fault_proxies.ts";
import { until } from "../support/processes.ts";
import { type TestServer, useAzurite } from "../support/servers.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE = 3 * MIB + 17;
/** Windows so small, and a link held for slow, that reads of a few hundred KiB have several. */
const SMALL_WINDOWS = {
  windowBytes: 256 * KIB,
  aheadBytes: 128 * KIB,
  trialBytes: 64 * KIB,
  fast: Number.POSITIVE_INFINITY,
};

const isCode = (code: MrError["code"]) => (error: unknown) => MrError.is(error, code);

describe("bytes to and from Blob", () => {
  let azurite: TestServer & { connectionString: string };
  let proxy: FaultyHttp;
  let link: FaultyLink;
  let store: AzureStore;
  let account: Account;
  let patience: Patience;
  let budget: ReadBudget;
  const random = seeded(1);
  const bytes = Buffer.from(Uint8Array.from({ length: SIZE }, () => random() * 256));

  before(async () => {
    azurite = await useAzurite();
    const port = /127\.0\.0\.1:(\d+)/.exec(azurite.connectionString)?.[1] ?? "";
    proxy = await FaultyHttp.open(Number(port));
    link = await FaultyLink.open(proxy.port);
    const connection = azurite.connectionString.replace(port, String(link.port));
    store = new AzureStore(connection, { patienceMs: 20_000, idleMs: 300 });
    patience = new Patience(20_000);
    account = new Account(serviceFor(connection), patience);
    await store.ensureContainer("box");
    await store.put("box", "bytes", chunksOf(bytes));
  });
  after(async () => {
    await link[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await azurite[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    proxy.rule = () => undefined;
    budget = new ReadBudget(MIB);
  });

  async function* chunksOf(whole: Buffer): AsyncIterable<Buffer> {
    for (let at = 0; at < whole.length; at += 700_001) yield whole.subarray(at, at + 700_001);
  }

  function windows(name: string, options: ReadOptions = {}): AsyncIterable<Uint8Array> {
    const source = { blob: account.blob("box", name), patience, idleMs: 300 };
    return windowedRead(source, options, budget, SMALL_WINDOWS);
  }

  function failGets(chosen: (nth: number) => boolean, fault: HttpFault): void {
    let seen = 0;
    proxy.rule = (req) => (req.method === "GET" && chosen(++seen) ? fault : undefined);
  }

  it("costs the requests that the store's table says, every try counted", async () => {
    const cost = async (work: () => Promise<unknown>) => {
      const from = { proxy: proxy.requests, store: store.requests };
      await work();
      const requests = store.requests - from.store;
      assert.equal(requests, proxy.requests - from.proxy);
      return requests;
    };
    const staged = (size: number) => async () => {
      const upload = await store.stage("box", "cost", "j/1");
      await upload.write(Buffer.alloc(size));
      await store.publish(await upload.seal());
    };
    assert.equal(await cost(staged(0)), 1);
    assert.equal(await cost(staged(1)), 2);
    assert.equal(await cost(staged(16 * MIB)), 2);
    assert.equal(await cost(staged(16 * MIB + 1)), 3);
    const own = (size: number) => async () => {
      const upload = await store.stage("box", "cost", "j/1");
      await upload.write(Buffer.alloc(size));
      await upload.publish();
    };
    assert.deepEqual([await cost(own(0)), await cost(own(5 * MIB))], [1, 1]);
    assert.equal(await cost(own(17 * MIB)), 3);
    const put = (size: number) => () => store.put("box", "cost", chunksOf(Buffer.alloc(size)));
    assert.deepEqual([await cost(put(0)), await cost(put(5 * MIB))], [1, 1]);
    assert.equal(await cost(put(17 * MIB)), 3);
    assert.equal(await cost(() => store.head("box", "cost")), 1);
    assert.equal(await cost(() => readAll(store.read("box", "cost"))), 1);
    assert.equal(await cost(() => readAll(store.read("box", "cost", { start: 1, length: 9 }))), 1);
    assert.equal(await cost(() => store.create("box", "cost-1", Buffer.alloc(9))), 1);
    assert.equal(await cost(() => store.create("box", "cost-1", Buffer.alloc(9))), 2);
    assert.equal(await cost(() => Array.fromAsync(store.list("box"))), 1);
    failGets((nth) => nth <= 2, { kind: "status", status: 503 });
    assert.equal(await cost(() => readAll(store.read("box", "cost-1"))), 3);
    failGets((nth) => nth <= 2, { kind: "break-body", bytes: 100_000 });
    assert.equal(await cost(() => readAll(store.read("box", "bytes"))), 3);
  });

  it("puts an object whose etag and size are what a look at it says", async () => {
    for (const size of [0, 1, MIB, 16 * MIB, 16 * MIB + 3]) {
      const info = await store.put("box", "put", chunksOf(Buffer.alloc(size, "x")));
      assert.deepEqual(info, await store.head("box", "put"));
      assert.equal(info.size, size);
    }
  });

  it("reads any range, in one request or in windows", async () => {
    const chance = seeded(2);
    for (let round = 0; round < 60; round += 1) {
      const start = Math.floor(chance() * SIZE);
      const length = Math.floor(chance() ** 2 * (SIZE - start + 100));
      const expected = bytes.subarray(start, start + length);
      const options = { start, length };
      assert.ok((await readAll(store.read("box", "bytes", options))).equals(expected));
      const sent = patience.requests;
      assert.ok((await readAll(windows("bytes", options))).equals(expected), `${start} ${length}`);
      assert.ok(patience.requests - sent <= 1 + Math.ceil(expected.length / (170 * KIB)));
      assert.equal(budget.held, 0);
    }
    const sent = patience.requests;
    assert.ok((await readAll(windows("bytes"))).equals(bytes));
    assert.ok(patience.requests - sent > 5, "no windows");
  });

  it("resumes windows that stall, break off or are refused, each where it ended", async () => {
    const faults: HttpFault[] = [
      { kind: "break-body", bytes: 70_000 },
      { kind: "stall-body", bytes: 70_000 },
      { kind: "stall-body", bytes: 0 },
      { kind: "status", status: 503 },
      { kind: "lose-reply" },
    ];
    for (const fault of faults) {
      failGets((nth) => nth % 3 === 1, fault);
      assert.ok((await readAll(windows("bytes"))).equals(bytes), JSON.stringify(fault));
    }
  });

  it("never mixes two versions in windows", async () => {
    // Deleted: Azurite holds the condition for not met.
    for (const other of [Buffer.alloc(SIZE, "other"), Buffer.alloc(SIZE / 4, "short"), undefined]) {
      for (const pinned of [false, true]) {
        const { etag } = await store.put("box", "versions", chunksOf(bytes));
        const options = pinned ? { etag } : {};
        const sent = patience.requests;
        let got = 0;
        let replaced = false;
        const reading = async () => {
          for await (const chunk of windows("versions", options)) {
            assert.ok(bytes.subarray(got, got + chunk.length).equals(chunk), `at ${got}`);
            got += chunk.length;
            // As soon as there are windows, and more of them to come.
            if (replaced || patience.requests < sent + 2) continue;
            replaced = true;
            if (other === undefined) await store.delete("box", "versions");
            else await store.put("box", "versions", chunksOf(other));
          }
        };
        await assert.rejects(reading(), isCode("changed"));
        assert.ok(got > 0 && got < SIZE);
      }
    }
  });

  it("leaves no request and no memory behind when its reader stops early", async () => {
    const before = connections();
    for (const taken of [1, 3, 12]) {
      let chunks = 0;
      for await (const _ of windows("bytes")) {
        chunks += 1;
        if (chunks === taken) break;
      }
      assert.equal(budget.held, 0);
      await until("idle connections", () => connections() <= before, 5_000);
    }
  });

  /** Those on which an answer is under way: an idle one holds no process. */
  function connections(): number {
    return process.getActiveResourcesInfo().filter((kind) => kind === "TCPSocketWrap").length;
  }

  it("comes ahead of its reader, but not by more than its bound", async () => {
    const reading = windows("bytes")[Symbol.asyncIterator]();
    await reading.next();
    await until("bytes ahead", () => budget.held >= SMALL_WINDOWS.aheadBytes, 5_000);
    await delay(200);
    // The windows are not cut yet: that takes a reader who waits.
    assert.ok(budget.held < SMALL_WINDOWS.aheadBytes + 128 * KIB, String(budget.held));
    await reading.return?.();
    assert.equal(budget.held, 0);
  });

  it("shares the store's budget between readers, each of which goes on", async () => {
    budget = new ReadBudget(64 * KIB);
    const readers = Array.from({ length: 8 }, () => windows("bytes")[Symbol.asyncIterator]());
    const got = readers.map(() => [] as Uint8Array[]);
    for (let open = readers.length; open > 0; ) {
      open = 0;
      for (const [i, reader] of readers.entries()) {
        const { value, done } = await reader.next();
        if (done) continue;
        open += 1;
        got[i]?.push(value);
      }
      assert.ok(budget.held <= budget.bytesMax + 16 * 64 * KIB, String(budget.held));
    }
    for (const parts of got) assert.ok(Buffer.concat(parts).equals(bytes));
  });

  it("stops an upload that hangs when it is discarded, and nothing of it is seen", async () => {
    const staged = await store.stage("box", "hangs", "j/1");
    link.break("cut");
    try {
      await staged.write(Buffer.alloc(33 * MIB));
      const startMs = performance.now();
      await staged.discard();
      assert.ok(performance.now() - startMs < 1_000);
    } finally {
      link.mend();
    }
    await assert.rejects(staged.seal(), isCode("aborted"));
    assert.equal(await store.head("box", "hangs"), undefined);
  });

  it("tells of a block that is refused in the midst of an upload", async () => {
    let blocks = 0;
    proxy.rule = ({ url = "" }) =>
      url.includes("comp=block&") && ++blocks >= 2 ? { kind: "status", status: 403 } : undefined;
    const staged = await store.stage("box", "refused", "j/1");
    const writing = async () => {
      for (let i = 0; i < 20; i += 1) await staged.write(Buffer.alloc(4 * MIB));
      await staged.seal();
    };
    await assert.rejects(writing(), isCode("denied"));
    await staged.discard();
    const body = chunksOf(Buffer.alloc(40 * MIB));
    await assert.rejects(store.put("box", "refused", body), isCode("denied"));
    assert.equal(await store.head("box", "refused"), undefined);
  });
});
