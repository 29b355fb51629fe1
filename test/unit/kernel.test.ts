import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { contractOf } from "../../internal/model/contract.ts";
import { OUTPUT } from "../../internal/shuffle/kernel/functions.ts";
import { type LineOrder, lineOrder } from "../../internal/shuffle/key_order.ts";
import { mergedPairs } from "../../internal/shuffle/merge.ts";
import { PairSorter } from "../../internal/shuffle/pair_sorter.ts";
import { RunWriter, readBlocks } from "../../internal/shuffle/run_format.ts";
import { type OpenSegment, SpillFolder } from "../../internal/shuffle/spill.ts";
import { seeded } from "../support/corpus.ts";
import { scratchFolder } from "../support/processes.ts";

/** The kernel's sort and merge against plain ones, over keys made to be hard to tell apart. */
const random = seeded(5);
const below = (max: number) => Math.floor(random() * max);
const pick = <T>(items: T[]) => items[below(items.length)] as T;

const contract = (conf: Record<string, string>) =>
  contractOf({ conf, partitioner: "", output_format: "" });
const COMPARATOR = contract({
  "mapreduce.job.output.key.comparator.class": "KeyFieldBasedComparator",
  "mapreduce.partition.keycomparator.options": "-k1,1nr",
});
const ORDERS: [string, LineOrder][] = [
  ["key bytes", lineOrder(contract({}), false)],
  ["whole lines", lineOrder(contract({}), true)],
  ["a comparator", lineOrder(COMPARATOR, false)],
  ["a comparator, then whole lines", lineOrder(COMPARATOR, true)],
];

const KEYS: [string, () => string][] = [
  ["few short keys", () => pick(["", "a", "b", "ab", "abc"])],
  ["zeros at their ends", () => "a".repeat(below(10)) + "\0".repeat(below(12))],
  ["long common beginnings", () => "p".repeat(40) + "q".repeat(below(60)) + below(50)],
  ["numbers", () => String(below(2_000) - 1_000)],
  [
    "any bytes",
    () => Buffer.from(Array.from({ length: below(20) }, () => pick(BYTES))).toString("latin1"),
  ],
  ["one key", () => "the one key that all have"],
  ["each the beginning of the next", () => "x".repeat(below(3_000))],
];
const BYTES = Array.from({ length: 256 }, (_, byte) => byte).filter((b) => b !== 9 && b !== 10);

interface Line {
  bytes: Buffer;
  keyBytes: number;
}

function makeLines(count: number, key: () => string): Line[] {
  return Array.from({ length: count }, () => {
    const bytes = Buffer.from(`${key()}\t${pick(["", "1", "2", String(below(1e6))])}`, "latin1");
    return { bytes, keyBytes: bytes.indexOf(9) };
  });
}

function compare(order: LineOrder, a: Line, b: Line): number {
  const { bytes, keyBytes } = a;
  return order.compare(bytes, 0, keyBytes, bytes.length, b.bytes, 0, b.keyBytes, b.bytes.length);
}

/** Equal lines stand where the first of them stood; that is how they are kept. */
function expected(lines: Line[], order: LineOrder): string {
  const first = new Map<string, number>();
  lines.forEach(({ bytes }, i) => {
    const text = bytes.toString("latin1");
    if (!first.has(text)) first.set(text, i);
  });
  const place = ({ bytes }: Line) => first.get(bytes.toString("latin1")) ?? 0;
  const sorted = lines.toSorted((a, b) => compare(order, a, b) || place(a) - place(b));
  return textOf(sorted);
}

function textOf(lines: Line[]): string {
  return lines.map(({ bytes }) => `${bytes.toString("latin1")}\n`).join("");
}

/** One sorted segment of the lines. */
async function segmentOf(
  lines: Line[],
  order: LineOrder,
  sortBytes: number,
  spill: SpillFolder,
): Promise<OpenSegment> {
  const format = { separator: "\t", keyFields: 1 };
  const given = { format, separator: "\t", lineBytesMax: 1 << 20, partitions: 1, order, sortBytes };
  using sorter = new PairSorter({ ...given, partitioner: { kind: "one" } }, spill);
  const input = Buffer.from(textOf(lines), "latin1");
  for (let at = 0; at < input.length; ) {
    const size = 1 + below(5_000);
    await sorter.push(input.subarray(at, at + size));
    at += size;
  }
  await sorter.end();
  assert.equal(sorter.records, lines.length);
  const chunks: Buffer[] = [];
  const writer = new RunWriter(async (chunk) => void chunks.push(Buffer.from(chunk)), {
    compress: false,
  });
  await sorter.writeTo(writer);
  const run = Buffer.concat(chunks);
  return () =>
    readBlocks(
      (async function* () {
        yield run;
      })(),
    );
}

async function linesOf(...given: Parameters<typeof mergedPairs>): Promise<string> {
  const out: Buffer[] = [];
  await mergedPairs(...given).give(
    OUTPUT.lines,
    async (chunk) => void out.push(Buffer.from(chunk)),
  );
  return Buffer.concat(out).toString("latin1");
}

describe("the kernel", () => {
  for (const [orderName, order] of ORDERS)
    for (const [keyName, key] of KEYS)
      it(`sorts ${keyName} by ${orderName}, in memory and through spilled runs`, async () => {
        await using folder = await scratchFolder("kernel");
        const spill = new SpillFolder(folder.path);
        const lines = makeLines(1_500, key);
        const inMemory = await segmentOf(lines, order, 1 << 24, spill);
        assert.equal(await linesOf([inMemory], order, spill), expected(lines, order));
        const spilled = await linesOf([await segmentOf(lines, order, 60_000, spill)], order, spill);
        assertSorted(spilled, lines, order);
      });

  it("merges any number of segments within bounds, the earlier first", async () => {
    await using folder = await scratchFolder("kernel");
    const spill = new SpillFolder(folder.path);
    for (let round = 0; round < 60; round += 1) {
      const [, order] = pick(ORDERS);
      const [, key] = pick(KEYS.slice(0, 6));
      const parts = Array.from({ length: below(40) }, () => makeLines(below(120), key));
      const segments: OpenSegment[] = [];
      for (const part of parts) segments.push(await segmentOf(part, order, 1 << 20, spill));
      const all = parts.flat();
      const bound = () => (random() < 0.3 ? undefined : Buffer.from(key(), "latin1"));
      const keys = { from: bound(), to: bound() };
      const within = all.filter(({ bytes, keyBytes }) => {
        const beside = (edge: Buffer) =>
          order.compareKeys(bytes, 0, keyBytes, edge, 0, edge.length);
        if (keys.from !== undefined && beside(keys.from) < 0) return false;
        return keys.to === undefined || beside(keys.to) < 0;
      });
      assertSorted(await linesOf(segments, order, spill, keys), within, order);
    }
  });

  it("says the same of the same lines in any order and in any cut, and another of others", async () => {
    const digest = async (lines: Line[]) => {
      await using folder = await scratchFolder("kernel");
      const given = { format: { separator: "\t", keyFields: 1 }, separator: "\t", partitions: 1 };
      using sorter = new PairSorter(
        {
          ...given,
          lineBytesMax: 1_000,
          order: lineOrder(contract({}), false),
          sortBytes: 5_000,
          partitioner: { kind: "one" },
        },
        new SpillFolder(folder.path),
      );
      for (const { bytes } of lines) await sorter.push(Buffer.concat([bytes, Buffer.from("\n")]));
      return sorter.digest;
    };
    const lines = makeLines(500, () => `k${below(50)}`);
    const one = await digest(lines);
    assert.equal(await digest(lines.toReversed()), one);
    const other = lines.map(({ bytes }, i) => ({
      bytes: i === 77 ? Buffer.from(`${bytes}x`) : bytes,
      keyBytes: 0,
    }));
    assert.notEqual(await digest(other), one);
  });

  it("keeps the counts when it gives up counting, long and short lines by turns", async () => {
    await using folder = await scratchFolder("kernel");
    const spill = new SpillFolder(folder.path);
    const order = lineOrder(contract({}), false);
    // Some of the first are there again and again, around the line at which counting ends and behind it.
    const lines = Array.from({ length: 60_000 }, (_, i) => {
      const key = i % 3 === 0 ? `often-${below(20)}` : `${i}${i % 100 === 1 ? "-".repeat(30) : ""}`;
      return { bytes: Buffer.from(`${key}\t1`), keyBytes: key.length };
    });
    const text = await linesOf([await segmentOf(lines, order, 1 << 24, spill)], order, spill);
    assert.equal(text, expected(lines, order));
  });

  it("takes lines of any length in memory of any size", async () => {
    await using folder = await scratchFolder("kernel");
    const spill = new SpillFolder(folder.path);
    const order = lineOrder(contract({}), false);
    const lines = [3, 700_000, 0, 900_000, 64, 300_000].map((size, i) => {
      const bytes = Buffer.from(`${"k".repeat(size)}\t${i}`);
      return { bytes, keyBytes: size };
    });
    const text = await linesOf([await segmentOf(lines, order, 1_000, spill)], order, spill);
    assert.equal(text, expected(lines, order));
  });
});

/** Where lines compare as equal, which comes first depends on the runs they were in. */
function assertSorted(text: string, lines: Line[], order: LineOrder): void {
  const got = text.split("\n").slice(0, -1);
  assert.deepEqual(got.toSorted(), lines.map(({ bytes }) => bytes.toString("latin1")).toSorted());
  let before: Line | undefined;
  for (const line of got) {
    const bytes = Buffer.from(line, "latin1");
    const next = { bytes, keyBytes: bytes.indexOf(9) };
    assert.ok(
      before === undefined || compare(order, before, next) <= 0,
      `${before?.bytes} > ${line}`,
    );
    before = next;
  }
}
