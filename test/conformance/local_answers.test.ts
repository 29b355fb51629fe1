import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { MrError } from "../../internal/model/errors.ts";
import { readAll } from "../../internal/model/object_store.ts";
import { storageError } from "../../internal/storage/local/errors.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { scratchFolder } from "../support/processes.ts";

async function* body(text: string): AsyncIterable<Uint8Array> {
  yield Buffer.from(text);
}

const errno = (code: string) =>
  Object.assign(new Error(`${code}: /a/path of this machine`), { code });

describe("a folder store", () => {
  it("says what the system refuses for good, and what may pass, without its paths", () => {
    for (const code of ["EACCES", "EPERM", "EROFS", "ENAMETOOLONG", "EILSEQ"])
      assert.equal(storageError(errno(code), "box/a").code, "denied", code);
    for (const code of ["ENOSPC", "EDQUOT", "EMFILE", "EIO", "ESTALE"])
      assert.equal(storageError(errno(code), "box/a").code, "unavailable", code);
    for (const code of ["EACCES", "ENOSPC", "EIO", "EISDIR"]) {
      const { message } = storageError(errno(code), "box/a");
      assert.match(message, /box\/a/);
      assert.doesNotMatch(message, /a path/);
    }
  });

  it("that cannot be written to says so at once", async () => {
    // Nobody makes folders there, root neither.
    const store = new LocalStore("/sys");
    for (const run of [
      () => store.ensureContainer("box"),
      () => store.stage("box", "a", "job/1"),
      () => store.create("box", "a", Buffer.from("x")),
    ])
      await assert.rejects(run(), (error: Error) => {
        assert.ok(MrError.is(error, "denied"), String(error));
        assert.match(error.message, /box/);
        return true;
      });
  });

  it("lists and reads files under names that it would give to none", async () => {
    await using folder = await scratchFolder("odd-names");
    const odd = ["dir\\a", "dot.", "tab\there", "sub/..."];
    await mkdir(join(folder.path, "box", "sub"), { recursive: true });
    for (const name of odd) await writeFile(join(folder.path, "box", name), name);
    const store = new LocalStore(folder.path);
    const listed = await Array.fromAsync(store.list("box"));
    assert.deepEqual(listed.map(({ name }) => name).toSorted(), odd.toSorted());
    for (const { name, etag, size } of listed) {
      assert.deepEqual(await store.head("box", name), { name, etag, size });
      assert.equal((await readAll(store.read("box", name, { etag }))).toString(), name);
      if (/[\\\t]|\.$/.test(name))
        await assert.rejects(store.put("box", name, body("x")), (error) =>
          MrError.is(error, "invalid"),
        );
    }
  });

  it("publishes what was staged under its own token, and nothing else that lies there", async () => {
    await using folder = await scratchFolder("tokens");
    const store = new LocalStore(folder.path);
    await store.ensureContainer("box");
    const staged = await store.stage("box", "a", "put");
    await staged.write(Buffer.from("another's"));
    const receipt = await staged.seal();
    const [group = "", id = ""] = receipt.token.split("/");
    for (const token of [
      group,
      `${group}/`,
      `${group}/.`,
      `x/../${receipt.token}`,
      id,
      "",
      "/",
      `/${id}`,
    ]) {
      const forged = { ...receipt, name: "stolen", token };
      await assert.rejects(store.publish(forged), (error) => MrError.is(error, "corrupt"), token);
      await assert.rejects(store.discard(forged), (error) => MrError.is(error, "corrupt"), token);
    }
    for (const group of ["", "..", "a/b", "."])
      await assert.rejects(store.discardStaged("box", group), (error) =>
        MrError.is(error, "invalid"),
      );
    await store.publish(receipt);
    assert.equal((await readAll(store.read("box", "a"))).toString(), "another's");
  });

  it("reads nothing outside a container, by whatever name", async () => {
    await using folder = await scratchFolder("outside");
    for (const container of ["box", "other"]) await mkdir(join(folder.path, container));
    await writeFile(join(folder.path, "other", "b"), "secret");
    await writeFile(join(folder.path, "box", "a"), "fine");
    await symlink(join(folder.path, "other", "b"), join(folder.path, "box", "link"));
    const store = new LocalStore(folder.path);
    const names = [
      "../other/b",
      "a/../../other/b",
      "..",
      ".",
      "",
      "/a",
      "a/",
      "./a",
      "a\0b",
      "//a",
    ];
    for (const name of [...names, "link"])
      for (const run of [() => readAll(store.read("box", name)), () => head(store, name)])
        await assert.rejects(run(), (error: Error) => {
          assert.ok(
            MrError.is(error, "denied") || MrError.is(error, "not_found"),
            `${JSON.stringify(name)}: ${error}`,
          );
          return true;
        });
  });
});

/** What is not there is an error here, too. */
async function head(store: LocalStore, name: string) {
  const found = await store.head("box", name);
  if (found === undefined) throw new MrError("not_found", name);
  return found;
}
