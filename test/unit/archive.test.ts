import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { JobArchive } from "../../internal/master/archive.ts";
import { MrError } from "../../internal/model/errors.ts";
import type { TaskView } from "../../internal/model/job.ts";
import type { ReadOptions } from "../../internal/model/object_store.ts";
import type { TaskPlan } from "../../internal/model/task.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { scratchFolder } from "../support/processes.ts";

/** Knows how much was read. */
class CountingStore extends LocalStore {
  bytes = 0;

  override async *read(container: string, name: string, options?: ReadOptions) {
    for await (const chunk of super.read(container, name, options)) {
      this.bytes += chunk.length;
      yield chunk;
    }
  }
}

const MAPS = 5_000;
const range = (map: number, i: number) => {
  const [start, length, size] = [i * 10, 10, 1_000];
  return { container: "text", name: `${"é".repeat(20)}-${map}`, etag: "e", start, length, size };
};
const PLAN: TaskPlan = {
  splits: Array.from({ length: MAPS }, (_, map) =>
    Array.from({ length: map % 3 }, (_, i) => range(map, i)),
  ),
  sources: Array.from({ length: MAPS }, (_, map) => ({
    ...{ kind: "segments" as const, object: `j/map/${map}`, size: 9, indexOffset: 5 },
    ...{ digest: "d", sizes: "" },
  })),
  cuts: ["a2V5"],
  maps: MAPS,
  reduces: 2,
};
const TASKS: TaskView[] = Array.from({ length: MAPS }, (_, map) => ({
  ...{ id: `m-${map}`, state: "done" as const, failures: 0, lastError: "", attempts: [] },
}));

describe("what is kept of an ended job", () => {
  it("tells of each task what it read, from its own part alone", async () => {
    await using folder = await scratchFolder("archive");
    const store = new CountingStore(folder.path);
    const archive = new JobArchive(store);
    await archive.write("j", { tasks: TASKS, plan: PLAN });
    for (const index of [0, 1, 2, MAPS - 1]) {
      store.bytes = 0;
      const plan = await archive.readPlan("j", { kind: "map", index });
      assert.deepEqual(plan.splits[index], PLAN.splits[index]);
      assert.deepEqual([plan.maps, plan.reduces], [MAPS, 2]);
      assert.ok(store.bytes < 1_000, `${store.bytes} bytes for one task`);
    }
    const { sources, cuts } = await archive.readPlan("j", { kind: "reduce", index: 1 });
    assert.deepEqual({ sources, cuts }, { sources: PLAN.sources, cuts: PLAN.cuts });
    assert.equal((await archive.readPlan("j", { kind: "map", index: MAPS })).maps, MAPS);
    assert.deepEqual(await archive.readTasks("j"), TASKS);
  });

  it("has neither cuts nor outputs where there were none", async () => {
    await using folder = await scratchFolder("archive");
    const archive = new JobArchive(new LocalStore(folder.path));
    const plan = { splits: [[range(0, 0)]], sources: [], maps: 1, reduces: 0 };
    await archive.write("j", { tasks: [], plan });
    assert.deepEqual(await archive.readPlan("j", { kind: "map", index: 0 }), plan);
    const { sources, cuts } = await archive.readPlan("j", { kind: "reduce", index: 0 });
    assert.deepEqual({ sources, cuts }, { sources: [], cuts: undefined });
    assert.deepEqual(await archive.readTasks("none"), []);
    const none = archive.readPlan("none", { kind: "map", index: 0 });
    await assert.rejects(none, (error) => MrError.is(error, "not_found"));
  });

  it("is read as it was kept before", async () => {
    await using folder = await scratchFolder("archive");
    const store = new LocalStore(folder.path);
    await store.create("dfs-logs", "j/plan.json", Buffer.from(JSON.stringify(PLAN)));
    await store.create("dfs-logs", "j/tasks.json", Buffer.from(JSON.stringify(TASKS)));
    const archive = new JobArchive(store);
    assert.deepEqual(await archive.readPlan("j", { kind: "map", index: 7 }), PLAN);
    assert.deepEqual(await archive.readTasks("j"), TASKS);
  });

  it("is read for so many at a time, and some more who wait", async () => {
    await using folder = await scratchFolder("archive");
    const archive = new JobArchive(new LocalStore(folder.path));
    await archive.write("j", { tasks: TASKS, plan: PLAN });
    const asked = Array.from({ length: 60 }, () =>
      archive.readPlan("j", { kind: "reduce", index: 0 }),
    );
    const answers = await Promise.allSettled(asked);
    const refused = answers.filter((answer) => answer.status === "rejected");
    assert.equal(refused.length, 60 - 34);
    for (const { reason } of refused) assert.ok(MrError.is(reason, "too_many"), String(reason));
    assert.equal((await archive.readPlan("j", { kind: "reduce", index: 0 })).maps, MAPS);
  });
});
