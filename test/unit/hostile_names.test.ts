import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join, posix, resolve, sep } from "node:path";
import { describe, it } from "node:test";
import { ANYONE, callerOf, parseTokens, placeFault } from "../../internal/model/access.ts";
import { MrError } from "../../internal/model/errors.ts";
import { isJobId, parseAttemptId } from "../../internal/model/ids.ts";
import { parseInput } from "../../internal/model/input_pattern.ts";
import {
  blobNameFault,
  containerNameFault,
  foundNameFault,
  parseLocation,
  prefixFault,
} from "../../internal/model/names.ts";
import { fileFault, fileOf } from "../../internal/model/request_fields.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { seeded } from "../support/corpus.ts";
import { scratchFolder } from "../support/processes.ts";

const NAMES = 100_000;
const random = seeded(47);
const below = (max: number) => Math.floor(random() * max);
const oneOf = <T>(list: readonly T[]): T => list[below(list.length)] as T;

/** What has broken out of, or into, something before, and what stands for it elsewhere. */
const PIECES = [
  "..",
  ".",
  "/",
  "//",
  "\\",
  "\\..\\",
  "%2e%2e",
  "%2f",
  "%5c",
  "%00",
  "\0",
  "\n",
  "\r\n",
  "\t",
  "\x7f",
  "\x1b[2J",
  "~",
  "~root",
  "$HOME",
  "$(id)",
  "`id`",
  ";id",
  "|id",
  "&",
  "*",
  "?",
  "[a]",
  "{a,b}",
  "**",
  "#",
  "#/etc/passwd",
  "C:",
  "\\\\host\\share",
  "file://",
  "http://169.254.169.254",
  "CON",
  "NUL",
  "aux.txt",
  ".staging",
  "_SUCCESS",
  "__proto__",
  "constructor",
  "toString",
  "etc/passwd",
  "proc/self/environ",
  "..%c0%af",
  "\u2024\u2024",
  "\uff0e\uff0e",
  "\u2215",
  "\uff0f",
  "\ud800",
  "\udfff",
  "\u202e",
  "\u0000",
  "\u00e4",
  "a\u0308",
  "\u{1f4a9}",
  " ",
  "  ",
  "-",
  "--",
  "-rf",
  "a",
  "A",
  "data",
  "x".repeat(64),
  "y".repeat(256),
  "z".repeat(1025),
  "m-00000",
  "r-00001",
  "1-1",
] as const;

function hostileName(): string {
  let name = "";
  for (let left = 1 + below(6); left > 0; left -= 1)
    name += below(4) === 0 ? String.fromCharCode(below(0x250)) : oneOf(PIECES);
  return name;
}

function each(check: (name: string) => void): void {
  for (let round = 0; round < NAMES; round += 1) {
    const name = hostileName();
    try {
      check(name);
    } catch (error) {
      throw new Error(`${JSON.stringify(name)}: ${(error as Error).message}`, { cause: error });
    }
  }
}

const ROOT = "/srv/store";

/** A path made of it stays where it was put, is what it says, and is one that a disk can have. */
function assertInside(name: string): void {
  const path = join(ROOT, "box", name);
  assert.ok(path.startsWith(`${ROOT}/box/`), path);
  assert.equal(resolve(path), path.replace(/\/$/, ""));
  assert.equal(posix.normalize(name), name);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  assert.doesNotMatch(name, /[\u0000-\u001f\u007f\\]/);
  assert.ok(name.isWellFormed());
  for (const segment of name.split(sep)) assert.ok(Buffer.byteLength(segment) <= 255);
}

async function* chunks(body: Buffer): AsyncIterable<Uint8Array> {
  yield body;
}

describe("100,000 hostile names", () => {
  it("of blobs: none that is taken leaves its container", () => {
    let taken = 0;
    each((name) => {
      if (blobNameFault(name) !== undefined) return;
      taken += 1;
      assertInside(name);
      assert.ok(name.length <= 1_024 && name !== "" && !name.endsWith("/"));
    });
    assert.ok(taken > NAMES / 50, `only ${taken} were taken: nothing was tried`);
  });

  it("of blobs that others made: what is read is what was listed", () => {
    each((name) => {
      if (foundNameFault(name) !== undefined) return;
      const path = name.split("/").map(encodeURIComponent).join("/");
      assert.equal(decodeURIComponent(new URL(`http://h/box/${path}`).pathname), `/box/${name}`);
    });
  });

  it("of prefixes, locations and patterns: none leaves its container", () => {
    let taken = 0;
    each((name) => {
      if (prefixFault(name) === undefined && name !== "") assertInside(name);
      for (const parsed of [parseLocation(`box/${name}`), parseInput(`box/${name}`)]) {
        if (typeof parsed === "string") continue;
        taken += 1;
        assert.equal(parsed.container, "box");
        // Of a pattern it is only what a listing is asked for, and stores check that again.
        if (prefixFault(parsed.prefix) === undefined)
          assertInside(parsed.prefix === "" ? "x" : parsed.prefix.replace(/\/$/, ""));
      }
      for (const parsed of [parseLocation(name), parseInput(name)])
        if (typeof parsed !== "string")
          assert.equal(containerNameFault(parsed.container), undefined);
    });
    assert.ok(taken > NAMES / 50, `only ${taken} were taken`);
  });

  it("of containers: none that is taken is more than a word", () => {
    each((name) => {
      if (containerNameFault(name) === undefined) assert.match(name, /^[a-z0-9]+(-[a-z0-9]+)*$/);
    });
  });

  it("of files: what lies in a script's folder lies in it itself", () => {
    each((name) => {
      for (const entry of [name, `tool.py#${name}`, `${name}#tool.py`]) {
        if (fileFault(entry) !== undefined) continue;
        const { name: blob, link } = fileOf(entry);
        assertInside(blob);
        assertInside(link);
        assert.ok(!link.includes("/"), link);
      }
    });
  });

  it("of jobs and attempts: nothing but our own passes", () => {
    each((name) => {
      if (isJobId(name)) assert.match(name, /^\d{8}-\d{6}-[a-z0-9]{6}(\.\d+)?$/);
      assert.equal(parseAttemptId(name), undefined);
      assert.equal(
        isJobId(`20261123-055720-abcdef${name}`) && !/^(\.[1-9]\d{0,2})?$/.test(name),
        false,
      );
    });
  });

  it("in a file of tokens: none opens more than it says", () => {
    const hash = "0".repeat(64);
    each((name) => {
      if (placeFault(name) === undefined)
        assert.match(name, /^([rw]:)?[a-z0-9-]*(\*?|\/[^\\*]*\*?)$/s);
      let entries: ReturnType<typeof parseTokens> = [];
      try {
        entries = parseTokens(`alice sha256:${hash} ${name}`);
      } catch {
        return;
      }
      for (const entry of entries) {
        assert.equal(entry.name, "alice");
        const caller = callerOf(entry);
        const other = { container: "other", prefix: "", exact: false };
        const begins = (place: string) =>
          "other".startsWith(place.replace(/^[rw]:/, "").replace(/\*$/, ""));
        if (!entry.places.some(begins))
          for (const right of ["read", "write"] as const)
            assert.equal(caller.may(right, other), false, name);
      }
    });
    assert.ok(ANYONE.may("write", { container: "anything", prefix: "", exact: false }));
  });

  it("given to a folder store: what it takes it has, and nothing lies elsewhere", async () => {
    await using folder = await scratchFolder("hostile");
    const store = new LocalStore(join(folder.path, "store"));
    await store.ensureContainer("box");
    let taken = 0;
    for (let round = 0; round < 2_000; round += 1) {
      const name = hostileName();
      const body = Buffer.from(`${round}`);
      const isGood = blobNameFault(name) === undefined;
      const put = store.put("box", name, chunks(body)).then(
        () => true,
        () => false,
      );
      if (await put) {
        assert.ok(isGood, JSON.stringify(name));
        taken += 1;
        assert.equal((await store.head("box", name))?.size, body.length);
      }
      await assert.rejects(Array.fromAsync(store.list("box", `${name}/../../`)), MrError);
      assert.equal(await store.containerExists(name).catch(() => false), name === "box");
    }
    assert.ok(taken > 50, `only ${taken} were taken`);
    assert.deepEqual(readdirSync(folder.path), ["store"]);
    assert.deepEqual(
      readdirSync(join(folder.path, "store")).filter((entry) => !entry.startsWith(".")),
      ["box"],
    );
  });
});
