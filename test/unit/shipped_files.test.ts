import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  createWriteStream,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { afterEach, beforeEach, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { Header } from "tar";
import { MrError } from "../../internal/model/errors.ts";
import { CONTAINER } from "../../internal/model/names.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { Scratch } from "../../internal/worker/attempt_files.ts";
import { digestOf } from "../../internal/worker/script_cache.ts";
import { scratchFolder } from "../support/processes.ts";

const MB = 1024 * 1024;
const NO_RUNNER = { socket: "/nowhere", secret: "", folder: "/nowhere" };
const { signal } = new AbortController();

/** A tar of so many entries, each of so many zeros; or of folders, where that is none. */
function tarOf(entries: number, bytes: number): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i < entries; i += 1) {
    const header = new Header({
      path: `e${i}`,
      type: bytes > 0 ? "File" : "Directory",
      size: bytes,
      mode: 0o755,
    });
    const block = Buffer.alloc(512);
    header.encode(block);
    parts.push(block, Buffer.alloc(Math.ceil(bytes / 512) * 512));
  }
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

describe("what a job ships", () => {
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  let store: LocalStore;
  beforeEach(async () => {
    folder = await scratchFolder("shipped");
    store = new LocalStore(join(folder.path, "store"));
    await store.ensureContainer(CONTAINER.scripts);
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  async function put(name: string, bytes: Uint8Array): Promise<string> {
    const body = (async function* () {
      yield bytes;
    })();
    return (await store.put(CONTAINER.scripts, name, body)).etag;
  }

  const scratchWith = (oneMb: number, allMb: number) =>
    new Scratch(join(folder.path, "scratch"), store, NO_RUNNER, {
      oneBytes: oneMb * MB,
      allBytes: allMb * MB,
    });
  const versionOf = (name: string, etag: string) =>
    join(folder.path, "scratch", "own", "cache", digestOf(`${name} ${etag}`));
  const cached = () => readdirSync(join(folder.path, "scratch", "own", "cache"));

  function layoutOf(scratch: Scratch) {
    const attempt = scratch.openFolder("attempt");
    scratch.renewLayout(attempt, false);
    return { attempt, shipment: scratch.shipment(attempt, signal) };
  }

  const refusal = (pattern: RegExp) => (error: unknown) => {
    assert.ok(MrError.is(error, "user"), String(error));
    assert.match((error as MrError).message, pattern);
    return true;
  };

  it("is laid out as it is, small and large, verified each time", async () => {
    const scratch = scratchWith(0, 0);
    const files = {
      small: randomBytes(1_000),
      large: randomBytes(3 * MB + 1),
      empty: Buffer.alloc(0),
    };
    for (const [name, bytes] of Object.entries(files)) {
      const etag = await put(name, bytes);
      for (const harm of [undefined, "changed", "gone"]) {
        const version = versionOf(name, etag);
        if (harm === "changed") writeFileSync(version, "another text");
        if (harm === "gone") rmSync(version);
        const { attempt, shipment } = layoutOf(scratch);
        await shipment.add(name, etag, "as");
        const path = join(attempt.layout, "as");
        assert.ok(readFileSync(path).equals(bytes), `${name} ${harm}`);
        assert.equal(statSync(path).mode & 0o111, 0o111);
      }
      const { bytes: first, size } = await scratch.cache.beginning(name, etag, 100, signal);
      assert.ok(first.equals(bytes.subarray(0, 100)));
      assert.equal(size, bytes.length);
      assert.equal(await scratch.cache.digest(name, etag, signal), digestOf(bytes));
    }
  });

  it("is never in memory as a whole", async () => {
    const scratch = scratchWith(0, 0);
    const path = join(folder.path, "store", CONTAINER.scripts, "model");
    const file = createWriteStream(path);
    for (let i = 0; i < 300; i += 1) file.write(Buffer.alloc(MB, i));
    file.end();
    await finished(file);
    const etag = (await store.head(CONTAINER.scripts, "model"))?.etag;
    const before = process.resourceUsage().maxRSS / 1024;
    const { shipment, attempt } = layoutOf(scratch);
    await shipment.add("model", etag, "model");
    await scratch.cache.beginning("model", etag, 1_000, signal);
    assert.equal(statSync(join(attempt.layout, "model")).size, 300 * MB);
    const grown = process.resourceUsage().maxRSS / 1024 - before;
    assert.ok(grown < 120, `memory grew by ${grown} MB`);
  });

  it("is refused beyond the limit of one file, and of all; nothing of it stays", async () => {
    const scratch = scratchWith(2, 3);
    const etags = new Map<string, string>();
    for (const name of ["a", "b"]) etags.set(name, await put(name, randomBytes(2 * MB)));
    etags.set("large", await put("large", randomBytes(2 * MB + 1)));
    const { shipment } = layoutOf(scratch);
    await assert.rejects(
      shipment.add("large", etags.get("large"), "x"),
      refusal(/dfs-scripts\/large is larger than 2 MB.*MR_FILE_MB/),
    );
    assert.deepEqual(cached(), []);
    await shipment.add("a", etags.get("a"), "a");
    await assert.rejects(
      shipment.add("b", etags.get("b"), "b"),
      refusal(
        /with dfs-scripts\/b the files of the job take more than 3 MB in all \(MR_FILES_MB\)/,
      ),
    );
  });

  it("counts archives as they are unpacked, all together", async () => {
    const scratch = scratchWith(2, 3);
    const bomb = await put("bomb.tgz", gzipSync(tarOf(1, 100 * MB)));
    const half = await put("half.tar.gz", gzipSync(tarOf(2, MB)));
    const first = layoutOf(scratch).shipment;
    await assert.rejects(
      first.add("bomb.tgz", bomb, "d"),
      refusal(/bomb.tgz, unpacked: the files of the job take more than 3 MB in all/),
    );
    const { shipment } = layoutOf(scratch);
    await shipment.add("half.tar.gz", half, "one");
    await assert.rejects(
      shipment.add("half.tar.gz", half, "two"),
      refusal(/half.tar.gz, unpacked/),
    );
  });

  it("leaves the disk again when other jobs ship other files", async () => {
    const scratch = scratchWith(1, 1);
    mkdirSync(join(folder.path, "scratch"), { recursive: true });
    for (let i = 0; i < 6; i += 1) {
      const etag = await put(`file-${i}`, randomBytes(MB));
      await layoutOf(scratch).shipment.add(`file-${i}`, etag, "x");
      assert.ok(cached().length <= 2, String(cached().length));
    }
  });
});
