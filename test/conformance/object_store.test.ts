import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { MrError } from "../../internal/model/errors.ts";
import { type ObjectStore, readAll } from "../../internal/model/object_store.ts";
import { AzureStore } from "../../internal/storage/azure/azure_store.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { scratchFolder } from "../support/processes.ts";
import { useAzurite } from "../support/servers.ts";

interface Backend extends AsyncDisposable {
  store: ObjectStore;
  /** Names of files that should not be left; empty where that cannot be seen. */
  litter(): Promise<string[]>;
}

async function folderBackend(): Promise<Backend> {
  const folder = await scratchFolder("store");
  return {
    store: new LocalStore(folder.path),
    litter: async () => {
      const all = await readdir(folder.path, { recursive: true });
      return all.filter((name) => name.startsWith(".staging/"));
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

async function azureBackend(): Promise<Backend> {
  const azurite = await useAzurite();
  return {
    store: new AzureStore(azurite.connectionString),
    litter: async () => [],
    [Symbol.asyncDispose]: () => azurite[Symbol.asyncDispose](),
  };
}

async function* body(...chunks: string[]): AsyncIterable<Uint8Array> {
  for (const chunk of chunks) yield Buffer.from(chunk);
}

const isCode = (code: ConstructorParameters<typeof MrError>[0]) => (error: unknown) =>
  MrError.is(error, code);

for (const [name, start] of [
  ["a folder", folderBackend],
  ["Azure Blob", azureBackend],
] as const) {
  describe(`ObjectStore on ${name}`, () => {
    let backend: Backend;
    let store: ObjectStore;
    const text = async (object: string, options = {}) =>
      (await readAll(store.read("box", object, options))).toString();
    before(async () => {
      backend = await start();
      store = backend.store;
      await store.ensureContainer("box");
    });
    after(() => backend[Symbol.asyncDispose]());

    it("makes containers once and lists them", async () => {
      assert.equal(await store.containerExists("new-box"), false);
      await store.ensureContainer("new-box");
      await store.ensureContainer("new-box");
      assert.equal(await store.containerExists("new-box"), true);
      assert.deepEqual(await store.containers(), ["box", "new-box"]);
    });

    it("puts, replaces, reads, lists and deletes", async () => {
      const first = await store.put("box", "a/one", body("hel", "lo"));
      assert.equal(first.size, 5);
      assert.equal(await text("a/one"), "hello");
      const second = await store.put("box", "a/one", body("bye"));
      assert.notEqual(second.etag, first.etag);
      assert.deepEqual(await store.head("box", "a/one"), second);
      await store.put("box", "a/empty", body());
      await store.put("box", "a-b", body("x"));
      await store.put("box", "a/two/deep", body("y"));
      const names = async (prefix?: string) =>
        (await Array.fromAsync(store.list("box", prefix))).map((info) => info.name);
      assert.deepEqual(await names("a"), ["a-b", "a/empty", "a/one", "a/two/deep"]);
      assert.deepEqual(await names("a/"), ["a/empty", "a/one", "a/two/deep"]);
      assert.deepEqual(await names("a/o"), ["a/one"]);
      assert.deepEqual(await names("zzz"), []);
      const listed = (await Array.fromAsync(store.list("box", "a/one")))[0];
      assert.deepEqual(listed, second);
      for (const object of await names("a")) await store.delete("box", object);
      await store.delete("box", "a/one");
      assert.deepEqual(await names(), []);
      assert.equal(await store.head("box", "a/one"), undefined);
    });

    it("reads ranges of one version only", async () => {
      const info = await store.put("box", "r", body("0123456789"));
      assert.equal(await text("r", { start: 3, length: 4, etag: info.etag }), "3456");
      assert.equal(await text("r", { start: 8, length: 100, etag: info.etag }), "89");
      assert.equal(await text("r", { start: 10, length: 5 }), "");
      await store.put("box", "r", body("abcdefghij"));
      await assert.rejects(text("r", { start: 3, length: 4, etag: info.etag }), isCode("changed"));
      await assert.rejects(text("none"), isCode("not_found"));
    });

    it("keeps staged objects invisible until published, and publishes twice", async () => {
      const [one, two] = [
        await store.stage("box", "s", "j/1"),
        await store.stage("box", "s", "j/2"),
      ];
      await one.write(Buffer.from("first"));
      await two.write(Buffer.from("second!"));
      const [a, b] = [await one.seal(), await two.seal()];
      assert.equal(await store.head("box", "s"), undefined);
      assert.deepEqual([a.size, b.size], [5, 7]);
      await store.publish(b);
      assert.equal(await text("s"), "second!");
      await store.publish(b);
      assert.equal(await text("s"), "second!");
      await store.discard(a);
      assert.deepEqual(await backend.litter(), []);
    });

    it("publishes an empty staged object", async () => {
      const staged = await store.stage("box", "empty", "j/1");
      await store.publish(await staged.seal());
      assert.equal(await text("empty"), "");
    });

    it("makes a staged object visible at once, of any size, where its name is its owner's alone", async () => {
      for (const size of [0, 5, 20 * 1024 * 1024 + 3]) {
        const staged = await store.stage("box", `own-${size}`, "j/1");
        const bytes = Buffer.alloc(size, "0123456789");
        await staged.write(bytes);
        assert.equal(await store.head("box", `own-${size}`), undefined);
        await staged.publish();
        assert.ok((await readAll(store.read("box", `own-${size}`))).equals(bytes));
      }
      const staged = await store.stage("box", "left", "j/1");
      await staged.discard();
      await assert.rejects(staged.publish());
      assert.equal(await store.head("box", "left"), undefined);
      assert.deepEqual(await backend.litter(), []);
    });

    it("forgets what was staged", async () => {
      const staged = await store.stage("box", "gone", "j/1");
      await staged.write(Buffer.from("x"));
      await staged.discard();
      const other = await store.stage("box", "gone", "k/1");
      await other.write(Buffer.from("x"));
      await other.seal();
      await store.discardStaged("box", "k");
      assert.equal(await store.head("box", "gone"), undefined);
      assert.deepEqual(await backend.litter(), []);
    });

    it("creates only where there is nothing", async () => {
      assert.equal(await store.create("box", "c", Buffer.from("1")), "created");
      assert.equal(await store.create("box", "c", Buffer.from("2")), "exists");
      assert.equal(await text("c"), "1");
      assert.deepEqual(await backend.litter(), []);
    });

    it("streams an object larger than any of its buffers", async () => {
      const block = Buffer.alloc(1024 * 1024);
      async function* big() {
        for (let i = 0; i < 21; i += 1) yield block.fill(i);
      }
      const info = await store.put("box", "big", big());
      assert.equal(info.size, 21 * block.length);
      let at = 0;
      for await (const chunk of store.read("box", "big", { etag: info.etag }))
        for (const byte of chunk.subarray(0, 1)) {
          assert.equal(byte, Math.floor(at / block.length));
          at += chunk.length;
        }
      assert.equal(at, info.size);
    });

    it("takes any good name and refuses any bad one", async () => {
      for (const good of ["ä ö/#?%25&+.txt", "日本/🙂", "a..b", "-"]) {
        await store.put("box", good, body(good));
        assert.equal(await text(good), good);
        assert.equal((await Array.fromAsync(store.list("box", good)))[0]?.name, good);
      }
      for (const bad of ["", "/a", "a/", "a//b", "../a", "a/../b", "a\\b", "a\nb", "a/."])
        await assert.rejects(store.put("box", bad, body("x")), isCode("invalid"), bad);
      for (const bad of ["", "..", "A", "ab", "a--b", "a/b", ".staging"])
        await assert.rejects(store.put(bad, "x", body("x")), isCode("invalid"), bad);
      await assert.rejects(Array.fromAsync(store.list("no-such-box")), isCode("not_found"));
      await assert.rejects(store.put("no-such-box", "x", body("x")), isCode("not_found"));
    });
  });
}
