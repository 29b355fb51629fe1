import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { sortedNames } from "../../internal/storage/local/sorted_names.ts";
import { seeded } from "../support/corpus.ts";

const random = seeded(41);
const below = (max: number) => Math.floor(random() * max);

async function* each(names: string[]): AsyncGenerator<string> {
  yield* names;
}

describe("names of a folder", () => {
  it("are given in the order of their bytes, of whatever letters and however many", async () => {
    // Of two units each, and those that have a greater unit than these, and fewer bytes.
    const letters = ["a", "b", "/", "-", "é", "\u{1f600}", "\u{10000}", "\ue000", "\uffee"];
    const name = (of: string[]) =>
      Array.from({ length: 1 + below(6) }, () => of[below(of.length)]).join("");
    for (const some of [letters, letters.slice(0, 5)])
      for (const count of [0, 1, 2, 4_095, 4_096, 4_097, 20_000]) {
        const names = Array.from({ length: count }, () => name(some));
        const expected = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        assert.deepEqual(await sortedNames(each(names)), expected);
      }
  });

  it("are sorted in turns with others", async () => {
    const names = Array.from({ length: 100_000 }, () => `part-${below(1e9)}`);
    let turns = 0;
    let isOver = false;
    const count = () => {
      turns += 1;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    await sortedNames(each(names));
    isOver = true;
    assert.ok(turns > 50, `${turns} turns`);
  });
});
