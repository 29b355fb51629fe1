import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decodeRecord } from "../../internal/model/records.ts";
import type { InputRange, Split } from "../../internal/model/task.ts";
import { planRecords, RANGES_PER_RECORD, splitsOf } from "../../internal/scheduler/plan_records.ts";
import { seeded } from "../support/corpus.ts";

const random = seeded(23);
const below = (max: number) => Math.floor(random() * max);

function range(start: number): InputRange {
  return { container: "in", name: `blob-${start}`, etag: "e", start, length: 1, size: start + 1 };
}

function randomPlan(): Split[] {
  // Empty ones, some of a few ranges, and some that no single record holds.
  const size = () => [0, 0, 1, 2 + below(5), below(4) === 0 ? below(500) : 1][below(5)] ?? 0;
  let ranges = 0;
  return Array.from({ length: below(400) }, () =>
    Array.from({ length: size() }, () => {
      ranges += 1;
      return range(ranges);
    }),
  );
}

describe("the records of a plan", () => {
  it("hold every split, in order, and no more ranges than may be in one", () => {
    for (let round = 0; round < 200; round += 1) {
      const splits = randomPlan();
      const records = [...planRecords(splits)].map((record) =>
        decodeRecord("plan", "plan", JSON.stringify(record)),
      );
      for (const { splits: held } of records) {
        const entries = held.reduce((sum, split) => sum + Math.max(1, split.length), 0);
        assert.ok(entries > 0 && entries <= RANGES_PER_RECORD, `${entries} entries`);
      }
      const counts = { maps: splits.length, records: records.length };
      // Beyond them lies what an unfinished plan has left.
      assert.deepEqual(splitsOf([...records, ...records.slice(0, 1)], counts), splits);
    }
  });

  it("are few where tasks are many", () => {
    const splits = Array.from({ length: 10_000 }, (_, index) => [range(index)]);
    assert.equal([...planRecords(splits)].length, Math.ceil(10_000 / RANGES_PER_RECORD));
  });

  it("are not whole when one is missing, out of place, or of another plan", () => {
    const splits = Array.from({ length: 400 }, (_, index) => [range(index)]);
    const records = [...planRecords(splits)];
    const counts = { maps: 400, records: records.length };
    assert.deepEqual(splitsOf(records, counts), splits);
    for (const [at] of records.entries()) {
      assert.equal(splitsOf(records.with(at, undefined as never), counts), undefined);
      const other = records.at(at - 1) as (typeof records)[number];
      assert.equal(splitsOf(records.with(at, other), counts), undefined);
    }
    assert.equal(splitsOf(records, { ...counts, maps: 401 }), undefined);
    assert.equal(splitsOf(records, { ...counts, records: records.length + 1 }), undefined);
  });
});
