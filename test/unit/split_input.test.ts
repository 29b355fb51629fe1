import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { MrError } from "../../internal/model/errors.ts";
import { type ObjectStore, type ReadOptions, readAll } from "../../internal/model/object_store.ts";
import type { Assignment, InputRange } from "../../internal/model/task.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { SplitInput, wholeOf } from "../../internal/worker/split_input.ts";
import { scratchFolder, until } from "../support/processes.ts";

const FILES = 20;

/** A folder's store that passes for one over a network, and notes what is read. */
function remoteStore(store: ObjectStore) {
  const opened: string[] = [];
  const closed: string[] = [];
  async function* read(container: string, name: string, options: ReadOptions = {}) {
    opened.push(name);
    try {
      for await (const chunk of store.read(container, name, { ...options, chunkBytes: 3 })) {
        yield chunk;
        options.signal?.throwIfAborted();
      }
    } finally {
      closed.push(name);
    }
  }
  const remote: ObjectStore = Object.create(store, {
    remote: { value: true },
    read: { value: read },
  });
  return { remote, opened, closed };
}

async function manyFiles(folder: string) {
  const store = new LocalStore(folder);
  await store.ensureContainer("words");
  const split: InputRange[] = [];
  for (let i = 0; i < FILES; i += 1) {
    const name = `file-${i}`;
    const { size, etag } = await store.put("words", name, chunks(contentOf(i)));
    split.push({ container: "words", name, start: 0, length: size, size, etag });
  }
  return { store, split };
}

const contentOf = (i: number) => `line ${i}\n`.repeat(i);

async function* chunks(text: string) {
  yield Buffer.from(text);
}

function assignmentOf(split: InputRange[]): Assignment {
  const input = { kind: "map", split, narrow: false };
  return { input } as Partial<Assignment> as Assignment;
}

const textOf = async (input: SplitInput, range: InputRange) =>
  (await readAll(input.read(range, wholeOf(range)))).toString();

describe("the input of a map task", () => {
  it("is asked for ahead, so many ranges at a time, and read whole", async () => {
    await using folder = await scratchFolder("input");
    const { store, split } = await manyFiles(join(folder.path, "store"));
    const { remote, opened, closed } = remoteStore(store);
    let wasRead = 0;
    const onRead = () => {
      wasRead += 1;
    };
    {
      using input = new SplitInput(remote, assignmentOf(split), onRead);
      input.begin();
      assert.equal(opened.length, 8);
      for (const [i, range] of split.entries()) {
        assert.equal(wasRead, 0);
        assert.equal(await textOf(input, range), contentOf(i));
        assert.equal(opened.length, Math.min(i + 1 + 8, FILES));
      }
      assert.equal(wasRead, 1);
      // Whoever reads a range again asks for it again.
      assert.equal(await textOf(input, split[3] as InputRange), contentOf(3));
    }
    assert.deepEqual(
      opened,
      [...split, split[3]].map((range) => range?.name),
    );
    assert.equal(closed.length, opened.length);
  });

  it("is not asked for ahead where it lies on this machine", async () => {
    await using folder = await scratchFolder("input");
    const { store, split } = await manyFiles(join(folder.path, "store"));
    using input = new SplitInput(store, assignmentOf(split), () => assert.fail("nobody waits"));
    input.begin();
    // So it is no fault either that there is nothing.
    await store.delete("words", "file-19");
    assert.equal(await textOf(input, split[18] as InputRange), contentOf(18));
    await assert.rejects(textOf(input, split[19] as InputRange), { code: "not_found" });
  });

  it("holds no more of a file that is named twice", async () => {
    await using folder = await scratchFolder("input");
    const { store, split } = await manyFiles(join(folder.path, "store"));
    const { remote, opened, closed } = remoteStore(store);
    const twice = split.slice(0, 3).flatMap((range) => [range, range]);
    using input = new SplitInput(remote, assignmentOf(twice));
    input.begin();
    assert.deepEqual(opened, ["file-0", "file-1", "file-2"]);
    for (const [i, range] of twice.entries())
      assert.equal(await textOf(input, range), contentOf(Math.floor(i / 2)));
    assert.equal(closed.length, opened.length);
  });

  it("fails only when it is read", async () => {
    await using folder = await scratchFolder("input");
    const { store, split } = await manyFiles(join(folder.path, "store"));
    const { remote, opened, closed } = remoteStore(store);
    await store.put("words", "file-2", chunks("another"));
    using input = new SplitInput(remote, assignmentOf(split));
    input.begin();
    assert.equal(await textOf(input, split[0] as InputRange), contentOf(0));
    assert.equal(await textOf(input, split[1] as InputRange), contentOf(1));
    await assert.rejects(textOf(input, split[2] as InputRange), { code: "changed" });
    assert.ok(opened.length > 8);
    assert.ok(closed.includes("file-2"));
  });

  it("is given up with its task, whether it was read or not", async () => {
    await using folder = await scratchFolder("input");
    const { store, split } = await manyFiles(join(folder.path, "store"));
    for (const how of ["aborted", "left", "never begun"]) {
      const { remote, opened, closed } = remoteStore(store);
      const task = new AbortController();
      const input = new SplitInput(remote, assignmentOf(split));
      input.begin();
      if (how !== "never begun") {
        input.follow(task.signal);
        const first = input.read(split[7] as InputRange, wholeOf(split[7] as InputRange));
        const reader = first[Symbol.asyncIterator]();
        assert.equal((await reader.next()).done, false);
        if (how === "aborted") {
          task.abort(new MrError("aborted", "stopped"));
          await assert.rejects(reader.next(), { code: "aborted" });
        } else await reader.return?.();
      }
      input[Symbol.dispose]();
      await until("the end of every read", () => closed.length === opened.length);
      assert.equal(opened.length, how === "never begun" ? 8 : 9, how);
      assert.deepEqual(closed.toSorted(), opened.toSorted(), how);
    }
  });
});
