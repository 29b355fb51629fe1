import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { planMemory } from "../../cmd/worker/memory_plan.ts";
import { contractOf } from "../../internal/model/contract.ts";
import { MrError } from "../../internal/model/errors.ts";
import { LIMIT } from "../../internal/model/limits.ts";
import type { StagedObject } from "../../internal/model/object_store.ts";
import { newStats } from "../../internal/model/task.ts";
import { OUTPUT } from "../../internal/shuffle/kernel/functions.ts";
import { Kernel } from "../../internal/shuffle/kernel/kernel.ts";
import { KeyIndexWriter, parseKeyIndex } from "../../internal/shuffle/key_index.ts";
import { lineOrder } from "../../internal/shuffle/key_order.ts";
import { LargeMemory, type LargeShare, TooLarge } from "../../internal/shuffle/large_memory.ts";
import { countLines } from "../../internal/shuffle/lines.ts";
import { PairSorter } from "../../internal/shuffle/pair_sorter.ts";
import { RunWriter } from "../../internal/shuffle/run_format.ts";
import { SpillFolder } from "../../internal/shuffle/spill.ts";
import { BuiltinReducer } from "../../internal/streaming/builtins/builtin_reducer.ts";
import { recordsOf } from "../../internal/worker/map_task.ts";
import { partWriter } from "../../internal/worker/part_writer.ts";
import type { TaskContext } from "../../internal/worker/task_context.ts";
import { scratchFolder } from "../support/processes.ts";

const MB = 1024 * 1024;
const GB = 1024 * MB;
const CONTRACT = contractOf({ conf: {}, partitioner: "", output_format: "" });
const ORDER = lineOrder(CONTRACT, false);
const KEYS = 12;
const LINE_BYTES = 1.5 * MB;

const textOf = (key: number) => String.fromCharCode(97 + key).repeat(LINE_BYTES);

/** What comes out when lines that are longer than the sort memory, a run each, are merged. */
async function keysMerged(share: LargeShare): Promise<string> {
  await using folder = await scratchFolder("long");
  const options = {
    format: CONTRACT.mapOutput,
    separator: "\t",
    lineBytesMax: 4 * MB,
    partitions: 1,
    partitioner: { kind: "one" as const },
    order: ORDER,
    sortBytes: MB,
  };
  const spill = new SpillFolder(folder.path, "", share);
  using sorter = new PairSorter(options, spill);
  for (let i = 0; i < KEYS; i += 1) {
    const key = (i * 5) % KEYS;
    await sorter.push(Buffer.from(`${String.fromCharCode(65 + key)}\t${textOf(key)}\n`));
  }
  await sorter.end();
  let text = "";
  await sorter.each(async (pairs) => {
    await pairs.give(OUTPUT.lines, async (lines) => {
      text += lines.toString("latin1");
    });
  });
  const lines = text.trimEnd().split("\n");
  lines.forEach((line, key) => {
    assert.equal(line.slice(2), textOf(key));
  });
  return lines.map((line) => line[0]).join("");
}

describe("long lines", () => {
  it("may be as long as what the worker has allows, and no longer than 256 MB", () => {
    const pod = { memoryBytes: 1.5 * GB, isShared: false, slots: 2, reducesPerSlot: 3 };
    const plan = (more: object) =>
      planMemory({ ...pod, sortBytes: 96 * MB, lineBytes: undefined, ...more });
    const lineMb = (more: object) => plan(more).lineBytesMax / MB;
    assert.equal(lineMb({}), 20);
    assert.ok(lineMb({ memoryBytes: 4 * GB }) > 60);
    assert.ok(lineMb({ slots: 4 }) < 10);
    assert.ok(lineMb({ sortBytes: 256 * MB }) < lineMb({}));
    assert.ok(lineMb({ isShared: true }) < lineMb({}));
    assert.equal(lineMb({ memoryBytes: 1_000 * GB }), 256);
    assert.equal(lineMb({ memoryBytes: 0.1 * GB }), 1);
    const asked = plan({ lineBytes: 256 * MB });
    assert.deepEqual([asked.lineBytesMax / MB, asked.lineBytesFit / MB], [256, 20]);
    for (const memoryBytes of [0.1, 0.5, 1, 2, 8, 64].map((gb) => gb * GB)) {
      const { mergeBytes, lineBytesMax } = plan({ memoryBytes });
      // Two of them can always be merged.
      assert.ok(mergeBytes >= 6 * lineBytesMax);
    }
  });

  it("are merged with little memory as with much", async () => {
    const expected = "ABCDEFGHIJKL";
    for (const mb of [1_000, 20, 10, 7]) {
      const share = new LargeMemory(mb * MB).share();
      assert.equal(await keysMerged(share), expected, `${mb} MB`);
      assert.equal(share.held, 0, `${mb} MB: some is held for ever`);
    }
  });

  it("fail their job, and say why, where no two of them can be merged", async () => {
    const memory = new LargeMemory(2 * MB);
    const share = memory.share();
    await assert.rejects(keysMerged(share), (error) => {
      assert.ok(MrError.is(error, "user"));
      assert.match((error as MrError).message, /its lines are too long.*2 MB/);
      return true;
    });
    assert.equal(share.held, 0);
  });

  it("wait for those of other tasks, and for none that waits itself", async () => {
    const memory = new LargeMemory(10 * MB);
    const [one, two] = [memory.share(), memory.share()];
    const [first, second, third] = [one.hold(), two.hold(), two.hold()];
    await first.add(6 * MB);
    await second.add(3 * MB);
    let hasMore = false;
    const waiting = third.add(5 * MB).then(() => {
      hasMore = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(!hasMore);
    using more = one.hold();
    await assert.rejects(more.add(4 * MB), (error) => MrError.is(error, "unavailable"));
    await assert.rejects(more.add(5 * MB), TooLarge);
    first[Symbol.dispose]();
    await waiting;
    const given = new AbortController();
    using late = memory.share(given.signal).hold();
    const inVain = late.add(9 * MB);
    given.abort(new Error("given up"));
    await assert.rejects(inVain, /given up/);
    for (const hold of [second, third]) hold[Symbol.dispose]();
    assert.deepEqual([one.held, two.held], [0, 0]);
  });

  it("are the job's fault, not the worker's, where the kernel can have no more", () => {
    using kernel = Kernel.take();
    kernel.oversize();
    assert.throws(
      () => kernel.region(5 * GB),
      (error) => MrError.is(error, "user"),
    );
  });
});

describe("what keys and options multiply", () => {
  it("ends a job whose histogram has too many values, long or short", async () => {
    for (const value of ["v".repeat(100_000), "v"]) {
      const reducer = new BuiltinReducer({
        name: "aggregate",
        role: "reduce",
        separatorBytes: 1,
        emit: () => false,
        flush: async () => undefined,
      });
      const key = "ValueHistogram:x";
      const fill = () => {
        for (let i = 0; i < 2_000_000; i += 1) {
          const line = Buffer.from(`${key}\t${i}${value}`);
          reducer.add(1, key.length, line, 0, line.length);
        }
      };
      assert.throws(fill, /a ValueHistogram has more different values than fit/);
    }
  });

  it("tells of some blocks of ranges only where there are very many", async () => {
    const keyIndex = new KeyIndexWriter(64, ORDER);
    const records = 1_000_000;
    for (let i = 0; i < records; i += 1)
      keyIndex.beginBlock(i * 63, Buffer.from(String(i).padStart(250, "0")));
    const bytes = keyIndex.end(records * 63);
    assert.ok(bytes.length <= LIMIT.runIndexBytes, `${bytes.length} bytes`);
    const { blocks, end } = parseKeyIndex(bytes);
    assert.ok(blocks.length > 10_000, `${blocks.length} blocks`);
    assert.equal(end, records * 63);
    const step = (blocks[1]?.offset ?? 0) / 63;
    for (const [i, { offset, key }] of blocks.entries()) {
      assert.equal(offset, i * step * 63);
      assert.equal(Number(key), i * step);
    }
  });

  it("keeps blocks small where many records come at once", async () => {
    const sizes: number[] = [];
    const writer = new RunWriter(async (chunk) => void sizes.push(chunk.length), {
      compress: false,
    });
    const line = Buffer.from(`key\t${"x".repeat(1_000)}`);
    for (let i = 0; i < 5_000; i += 1) writer.add(1, 3, line, 0, line.length);
    await writer.endSegment();
    assert.ok(Math.max(...sizes) < 300 * 1024, String(Math.max(...sizes)));
  });
});

describe("many empty lines", () => {
  const separator = "€".repeat(64);
  const empty = Buffer.alloc(MB, "\n");

  it("become no more than a few megabytes at a time where each gets a separator", async () => {
    const conf = { "mapreduce.output.textoutputformat.separator": separator };
    const contract = contractOf({ conf, partitioner: "", output_format: "hadoop" });
    const stats = newStats();
    const options = { lineBytesMax: MB };
    const context = { contract, stats, options } as unknown as TaskContext;
    let [most, all] = [0, 0];
    const staged = {
      write: async ({ length }: Uint8Array) => {
        most = Math.max(most, length);
        all += length;
      },
    } as Partial<StagedObject> as StagedObject;
    const part = partWriter(context, staged, contract.mapOutput);
    await part.push(empty);
    await part.end();
    assert.equal(all, MB * (1 + Buffer.byteLength(separator)));
    assert.ok(most < 16 * MB, String(most));
  });

  it("nor where each gets its offset", async () => {
    const conf = {
      "stream.map.input.ignoreKey": "false",
      "stream.map.input.field.separator": separator,
    };
    const contract = contractOf({ conf, partitioner: "", output_format: "" });
    const read = async function* () {
      yield empty;
    };
    const range = { container: "c", name: "n", etag: "", start: 0, length: MB, size: MB };
    for (const name of ["n", "n.gz"]) {
      const bytes = name === "n" ? read : () => gzipped(empty);
      const context = { contract, input: { read: bytes } } as unknown as TaskContext;
      let [most, lines] = [0, 0];
      for await (const chunk of recordsOf(context, { ...range, name })) {
        most = Math.max(most, chunk.length);
        lines += countLines(chunk);
      }
      assert.equal(lines, MB);
      assert.ok(most < 16 * MB, String(most));
    }
  });
});

async function* gzipped(bytes: Buffer) {
  yield gzipSync(bytes);
}
