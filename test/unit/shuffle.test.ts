import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { contractOf } from "../../internal/model/contract.ts";
import type { InputRange } from "../../internal/model/task.ts";
import { type InputBlob, planSplits } from "../../internal/scheduler/plan.ts";
import { OUTPUT } from "../../internal/shuffle/kernel/functions.ts";
import { lineOrder } from "../../internal/shuffle/key_order.ts";
import { mergedPairs } from "../../internal/shuffle/merge.ts";
import { type Combine, PairSorter } from "../../internal/shuffle/pair_sorter.ts";
import { partitionerOf } from "../../internal/shuffle/partitioner.ts";
import {
  INDEX_ENTRY_BYTES,
  parseIndexEntry,
  RunWriter,
  readBlocks,
} from "../../internal/shuffle/run_format.ts";
import { eachPair } from "../../internal/shuffle/sorted_pairs.ts";
import { SpillFolder } from "../../internal/shuffle/spill.ts";
import { type Extent, readSplitRange } from "../../internal/shuffle/split_reader.ts";
import { BuiltinReducer } from "../../internal/streaming/builtins/builtin_reducer.ts";
import { seeded } from "../support/corpus.ts";
import { normalized } from "../support/oracle.ts";
import { scratchFolder } from "../support/processes.ts";

const random = seeded(11);
const below = (max: number) => Math.floor(random() * max);

const PLAIN = contractOf({ conf: {}, partitioner: "", output_format: "" });
const ORDER = lineOrder(PLAIN, false);

/** A blob in memory, read in chunks of random sizes. */
function readerOf(contents: Map<string, Buffer>) {
  return async function* (range: InputRange, { start, length }: Extent) {
    const bytes = (contents.get(range.name) as Buffer).subarray(start, start + length);
    for (let at = 0; at < bytes.length; ) {
      const size = 1 + below(6);
      // A copy that is wiped afterwards: nobody may hold on to a chunk's memory unasked.
      yield Buffer.from(bytes.subarray(at, at + size));
      at += size;
    }
  };
}

async function gather(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of chunks) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

describe("splits", () => {
  it("give every record once, in order, whatever the bytes, the cuts and the chunks", async () => {
    const alphabet = ["a", "b", "\n", "\r", "\r\n", ""];
    for (let round = 0; round < 2_000; round += 1) {
      const contents = new Map<string, Buffer>();
      const blobs: InputBlob[] = [];
      for (let i = 1 + below(3); i > 0; i -= 1) {
        let text = "";
        for (let n = below(30); n > 0; n -= 1) text += alphabet[below(alphabet.length)];
        contents.set(`b${i}`, Buffer.from(text));
        blobs.push({ container: "c", name: `b${i}`, etag: "e", size: text.length, whole: false });
      }
      const parts: Buffer[] = [];
      const splits = planSplits(blobs, 1 + below(12));
      for (const range of splits.flat())
        parts.push(
          await gather(readSplitRange(range, readerOf(contents), undefined, 1 + below(20))),
        );
      const expected = Buffer.concat(
        blobs.map(({ name }) => normalized(contents.get(name) as Buffer)),
      );
      assert.deepEqual(
        Buffer.concat(parts).toString(),
        expected.toString(),
        JSON.stringify({ splits, contents: [...contents].map(String) }),
      );
    }
  });

  it("cover the input evenly: large blobs are cut, small ones packed", () => {
    const blob = (name: string, size: number): InputBlob => ({
      container: "c",
      name,
      etag: "e",
      size,
      whole: false,
    });
    const small = Array.from({ length: 5_000 }, (_, i) => blob(`s${i}`, 1_000));
    const packed = planSplits(small, 20);
    assert.equal(packed.length, 20);
    for (const split of packed) assert.ok(Math.abs(split.length - 250) <= 1, `${split.length}`);
    assert.equal(packed.flat().length, 5_000, "a small blob was cut");
    const cut = planSplits([blob("big", 1_000_003), ...small.slice(0, 10)], 7);
    const sizes = cut.map((split) => split.reduce((sum, range) => sum + range.length, 0));
    assert.equal(
      sizes.reduce((a, b) => a + b),
      1_010_003,
    );
    assert.ok(Math.max(...sizes) - Math.min(...sizes) < 5_000, String(sizes));
    assert.deepEqual(planSplits([], 3), [[], [], []]);
  });

  it("keep compressed blobs whole", () => {
    const blobs = Array.from({ length: 9 }, (_, i) => ({
      container: "c",
      name: `${i}.gz`,
      etag: "e",
      size: 10 + i * 100,
      whole: true,
    }));
    const ranges = planSplits(blobs, 4).flat();
    assert.deepEqual(
      ranges.map(({ start, length }) => [start, length]),
      blobs.map(({ size }) => [0, size]),
    );
  });
});

interface MapSide {
  partitions: number;
  sortBytes: number;
  lineBytesMax?: number;
  combine?: Combine;
}

/** The map side behind a mapper, and how to write what it made. */
function mapSide(
  { partitions, sortBytes, lineBytesMax = 1 << 20, combine }: MapSide,
  spill: SpillFolder,
) {
  const partitioner = partitionerOf(PLAIN, partitions);
  const format = { separator: "\t", keyFields: 1 };
  const lines = new PairSorter(
    { format, separator: "\t", lineBytesMax, partitions, partitioner, order: ORDER, sortBytes },
    spill,
    combine,
  );
  const write = async (compress: boolean) => {
    const chunks: Buffer[] = [];
    await lines.end();
    const writer = new RunWriter(
      async (chunk) => {
        chunks.push(Buffer.from(chunk));
      },
      { compress },
    );
    await lines.writeTo(writer);
    const indexOffset = await writer.end();
    return { object: Buffer.concat(chunks), size: writer.size, indexOffset };
  };
  return { lines, write };
}

/** Runs lines through the map side with this much memory, and merges each partition again. */
async function shuffle(lines: Buffer, partitions: number, sortBytes: number): Promise<Buffer[]> {
  await using folder = await scratchFolder("shuffle");
  const spill = new SpillFolder(folder.path);
  const output = mapSide({ partitions, sortBytes }, spill);
  for (let at = 0; at < lines.length; ) {
    const size = 1 + below(200);
    await output.lines.push(Buffer.from(lines.subarray(at, at + size)));
    at += size;
  }
  const { object, size, indexOffset } = await output.write(random() < 0.5);
  assert.equal(object.length, size);
  const results: Buffer[] = [];
  for (let partition = 0; partition < partitions; partition += 1) {
    const at = indexOffset + partition * INDEX_ENTRY_BYTES;
    const { offset, bytes } = parseIndexEntry(object.subarray(at, at + INDEX_ENTRY_BYTES));
    const segment = async function* () {
      yield object.subarray(offset, offset + bytes);
    };
    const out: Buffer[] = [];
    await mergedPairs([() => readBlocks(segment())], ORDER, spill).give(
      OUTPUT.lines,
      async (chunk) => {
        out.push(Buffer.from(chunk));
      },
    );
    results.push(Buffer.concat(out));
  }
  output.lines[Symbol.dispose]();
  return results;
}

describe("the partitioner", () => {
  it("is Hadoop's, by an independent reckoning in Python", async () => {
    const bytes = Array.from({ length: 256 }, (_, byte) => byte).filter((b) => b !== 9 && b !== 10);
    const keys = Array.from({ length: 1_000 }, () =>
      Buffer.from(Array.from({ length: below(20) }, () => bytes[below(bytes.length)] as number)),
    );
    const script = `
import sys
for line in sys.stdin.read().split("\\n"):
    h = 1
    for b in bytes.fromhex(line):
        h = (31 * h + (b - 256 if b > 127 else b)) & 0xffffffff
    print((h & 0x7fffffff) % 7)
`;
    const input = keys.map((key) => key.toString("hex")).join("\n");
    const expected = execFileSync("python3", ["-c", script], { input })
      .toString()
      .trim()
      .split("\n");
    const lines = keys.map((key, i) => Buffer.concat([key, Buffer.from(`\t${i}\n`)]));
    const actual: string[] = [];
    (await shuffle(Buffer.concat(lines), 7, 1 << 20)).forEach((part, partition) => {
      for (const line of part.toString("latin1").split("\n").slice(0, -1))
        actual[Number(line.split("\t")[1])] = String(partition);
    });
    assert.deepEqual(actual, expected);
  });
});

describe("the shuffle", () => {
  for (const [name, sortBytes, line] of [
    ["few distinct words, in memory", 1 << 20, () => `w${below(50)}\t1`],
    ["few distinct words, spilled often", 4_000, () => `w${below(200)}\t${below(3)}`],
    ["more spills than one merge takes", 1_500, () => `${random()}\t${below(9)}`],
    ["distinct keys with long common prefixes", 1 << 20, () => `prefix-prefix-${below(1e9)}\tv`],
    [
      "bytes below TAB, empty keys and values",
      1 << 20,
      () =>
        ["\u0001", "\t", "", "a\u0001\tx", "a\tx", "a", "\u0000\u0000", "a\tb\tc"][below(8)] ?? "",
    ],
  ] as [string, number, () => string][])
    it(`keeps every line, sorted by key in its partition: ${name}`, async () => {
      const lines = Array.from({ length: 20_000 }, line);
      const results = await shuffle(
        Buffer.from(lines.map((text) => `${text}\n`).join("")),
        3,
        sortBytes,
      );
      const keyOf = (text: string) => Buffer.from(text.split("\t", 1)[0] ?? "");
      const all: string[] = [];
      const partitionOf = new Map<string, number>();
      results.forEach((bytes, partition) => {
        const got = bytes.toString().split("\n").slice(0, -1);
        got.forEach((text, i) => {
          const key = keyOf(text);
          assert.equal(
            partitionOf.get(String(key)) ?? partition,
            partition,
            "one key, one partition",
          );
          partitionOf.set(String(key), partition);
          if (i > 0)
            assert.ok(Buffer.compare(keyOf(got[i - 1] ?? ""), key) <= 0, `${got[i - 1]} > ${text}`);
        });
        all.push(...got);
      });
      const expected = lines.map((text) => (text.includes("\t") ? text : `${text}\t`));
      assert.deepEqual(all.toSorted(), expected.toSorted());
    });

  it("combines on every spill, and once more when many runs are merged", async () => {
    await using folder = await scratchFolder("combine");
    const passes: number[] = [];
    const combine: Combine = async (pairs, writer) => {
      const sum = new BuiltinReducer({
        name: "sum",
        role: "combine",
        separatorBytes: 1,
        emit: (key, value) => {
          const line = Buffer.concat([key, Buffer.from("\t"), value]);
          return writer.add(1, key.length, line, 0, line.length);
        },
        flush: () => writer.flush(),
      });
      passes.push(await eachPair(pairs, sum));
      await sum.end();
    };
    const output = mapSide(
      { partitions: 1, sortBytes: 4_000, combine },
      new SpillFolder(folder.path),
    );
    const lines = Array.from({ length: 5_000 }, (_, i) => `k${i % 300}\t${i}\n`);
    await output.lines.push(Buffer.from(lines.join("")));
    const { object, indexOffset } = await output.write(false);
    const { offset, bytes } = parseIndexEntry(object.subarray(indexOffset));
    const segment = async function* () {
      yield object.subarray(offset, offset + bytes);
    };
    const sums = new Map<string, number>();
    const merged = mergedPairs([() => readBlocks(segment())], ORDER, new SpillFolder(folder.path));
    await eachPair(merged, {
      add(_count, _keyBytes, from, start, end) {
        const [key = "", value] = from.toString("latin1", start, end).split("\t");
        assert.ok(!sums.has(key), `${key} was not combined`);
        sums.set(key, Number(value));
        return false;
      },
      flush: async () => undefined,
    });
    const expected = new Map<string, number>();
    for (let i = 0; i < 5_000; i += 1)
      expected.set(`k${i % 300}`, (expected.get(`k${i % 300}`) ?? 0) + i);
    assert.deepEqual([...sums].toSorted(), [...expected].toSorted());
    assert.ok(passes.length > 10, "there were spills");
    assert.equal(
      passes.slice(0, -1).reduce((a, b) => a + b, 0),
      5_000,
    );
    assert.ok((passes.at(-1) ?? 0) > 300, "the merge was combined");
  });

  it("notices every flipped byte of a segment or its index", async () => {
    await using folder = await scratchFolder("corrupt");
    const spill = new SpillFolder(folder.path);
    const output = mapSide({ partitions: 1, sortBytes: 1 << 20 }, spill);
    await output.lines.push(Buffer.from("a\t1\nb\t2\nc\t3\n"));
    const { object, indexOffset } = await output.write(false);
    for (let at = 0; at < object.length; at += 1) {
      const broken = Buffer.from(object);
      broken[at] = (broken[at] as number) ^ 1;
      const read = async () => {
        const { offset, bytes } = parseIndexEntry(
          broken.subarray(indexOffset, indexOffset + INDEX_ENTRY_BYTES),
        );
        const segment = async function* () {
          yield broken.subarray(offset, offset + bytes);
        };
        const merged = mergedPairs([() => readBlocks(segment())], ORDER, spill);
        await merged.give(OUTPUT.lines, async () => undefined);
      };
      await assert.rejects(read, { code: "corrupt" }, `byte ${at}`);
    }
  });

  it("holds what comes after a fill that was not worth counting", async () => {
    const distinct = Array.from({ length: 200_000 }, (_, i) => `${i}\t\n`).join("");
    const same = "same\t\n".repeat(60_000);
    const lines = Buffer.from(distinct + same + distinct);
    const [result] = await shuffle(lines, 1, 1 << 23);
    assert.equal(result?.length, lines.length);
  });

  it("refuses a line beyond the limit", async () => {
    await using folder = await scratchFolder("long");
    const options = { partitions: 1, sortBytes: 1 << 20, lineBytesMax: 100 };
    const output = mapSide(options, new SpillFolder(folder.path));
    await assert.rejects(
      async () => {
        for (let i = 0; i < 20; i += 1) await output.lines.push(Buffer.from("0123456789"));
      },
      { code: "user" },
    );
  });
});
