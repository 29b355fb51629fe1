import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { contractOf } from "../../internal/model/contract.ts";
import { newProgress, newStats, type Source, type TaskJob } from "../../internal/model/task.ts";
import { OUTPUT } from "../../internal/shuffle/kernel/functions.ts";
import { lineOrder } from "../../internal/shuffle/key_order.ts";
import { mergedPairs } from "../../internal/shuffle/merge.ts";
import { PairSorter } from "../../internal/shuffle/pair_sorter.ts";
import { RunWriter } from "../../internal/shuffle/run_format.ts";
import { SpillFolder } from "../../internal/shuffle/spill.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { Scratch } from "../../internal/worker/attempt_files.ts";
import { EarlyReduces } from "../../internal/worker/early_reduces.ts";
import { findSegments } from "../../internal/worker/segment_reader.ts";
import type { TaskContext } from "../../internal/worker/task_context.ts";
import { scratchFolder } from "../support/processes.ts";

const MAPS = 50;
const INTERMEDIATE = "dfs-intermediate";
const CONTRACT = contractOf({ conf: {}, partitioner: "", output_format: "" });
const ORDER = lineOrder(CONTRACT, false);
const JOB: TaskJob = {
  id: "job-1",
  name: "",
  command: "cat",
  combiner: "",
  partitioner: "",
  outputFormat: "",
  sortValues: false,
  files: [],
  scripts: {},
  env: {},
  conf: {},
  maps: MAPS,
  reduces: 1,
  output: "",
  badRecordsMax: 0,
  badOutput: "",
  network: false,
};
const NO_LIMITS = { oneBytes: 0, allBytes: 0 };
/** Nothing is started here. */
const NO_RUNNER = { socket: "/nowhere", secret: "", folder: "/nowhere" };

/** The output of a map task: few keys, each with a value that tells where it was made. */
async function writeOutput(store: LocalStore, map: number, attempt: string): Promise<Source> {
  const options = {
    format: CONTRACT.mapOutput,
    separator: CONTRACT.reduceInput.separator,
    lineBytesMax: 1_000,
    partitions: 1,
    partitioner: { kind: "one" as const },
    order: ORDER,
    sortBytes: 1 << 20,
  };
  const spill = new SpillFolder("/nowhere");
  using sorter = new PairSorter(options, spill);
  for (let i = 0; i < 200; i += 1)
    await sorter.push(Buffer.from(`key-${(i * 7 + map) % 11}\tmap ${map}, line ${i}\n`));
  await sorter.end();
  const object = `job-1/map/m-${String(map).padStart(5, "0")}-${attempt}`;
  const staged = await store.stage(INTERMEDIATE, object, `job-1/${object}`);
  const writer = new RunWriter((chunk) => staged.write(chunk), { compress: false });
  await sorter.writeTo(writer);
  const indexOffset = await writer.end();
  await store.publish(await staged.seal());
  const [at] = writer.index;
  return { object, size: writer.size, indexOffset, at };
}

describe("reduce tasks that begin early", () => {
  it("read the same as those that do not, whatever came when", async () => {
    await using folder = await scratchFolder("early");
    const store = new LocalStore(join(folder.path, "store"));
    const scratch = new Scratch(join(folder.path, "scratch"), store, NO_RUNNER, NO_LIMITS);
    const sources: Source[] = [];
    for (let map = 0; map < MAPS; map += 1)
      sources.push(await writeOutput(store, map, "attempt-1"));
    const early = new EarlyReduces(store, scratch);
    const add = (maps: number[]) =>
      early.add({
        job: JOB,
        partition: 0,
        maps,
        sources: maps.map((map) => sources[map] as Source),
      });
    const range = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => from + i);
    // Now one alone, then many at once; what is between comes last, or never.
    await add([30]);
    await add(range(0, 12));
    await add(range(31, 45));
    await add([15, 16, 13, 14, 17, 18, 20, 21, 22, 23, 24, 25]);
    await add([12, 19]);
    // This one is made again meanwhile: the run that it is in is not used.
    sources[33] = await writeOutput(store, 33, "attempt-2");

    const read = async (withEarly: boolean) => {
      const spill = new SpillFolder(folder.path, withEarly ? "with-" : "without-");
      const stats = newStats();
      const context = {
        store,
        signal: new AbortController().signal,
        stats,
        progress: newProgress(),
        order: ORDER,
        spill,
      } as Partial<TaskContext> as TaskContext;
      await using taken = withEarly ? await early.take(JOB.id, 0) : undefined;
      const input = { kind: "reduce" as const, partition: 0, sources, keys: undefined };
      const segments = await findSegments(context, input, taken?.runs);
      const out: Buffer[] = [];
      await mergedPairs(segments, ORDER, spill).give(OUTPUT.lines, async (lines) => {
        out.push(Buffer.from(lines));
      });
      return { text: Buffer.concat(out).toString(), segments: segments.length, stats };
    };
    const plain = await read(false);
    const prepared = await read(true);
    assert.equal(plain.segments, MAPS);
    assert.ok(prepared.segments < MAPS - 20, `${prepared.segments} segments`);
    assert.equal(prepared.text, plain.text);
    assert.equal(plain.text.split("\n").length - 1, MAPS * 200);
    assert.equal(prepared.stats.bytesIn, plain.stats.bytesIn);
    assert.deepEqual(readdirSync(join(folder.path, "scratch", "own", "spill")), []);
  });

  it("leave nothing behind when they are forgotten, or their input is gone", async () => {
    await using folder = await scratchFolder("early");
    const store = new LocalStore(join(folder.path, "store"));
    const scratch = new Scratch(join(folder.path, "scratch"), store, NO_RUNNER, NO_LIMITS);
    const sources: Source[] = [];
    for (let map = 0; map < 20; map += 1) sources.push(await writeOutput(store, map, "attempt-1"));
    await store.delete(INTERMEDIATE, (sources[4] as Source).object);
    const early = new EarlyReduces(store, scratch);
    const maps = sources.map((_, map) => map);
    await early.add({ job: JOB, partition: 0, maps, sources });
    const taken = await early.take(JOB.id, 0);
    assert.deepEqual(taken?.runs, []);
    await taken?.[Symbol.asyncDispose]();
    await early.add({
      job: JOB,
      partition: 1,
      maps: maps.slice(10),
      sources: sources.slice(10),
    });
    const spill = join(folder.path, "scratch", "own", "spill");
    assert.equal(readdirSync(spill).length, 1);
    await early.forget(undefined);
    assert.deepEqual(readdirSync(spill), []);
    assert.equal(await early.take(JOB.id, 1), undefined);
  });
});
