import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type JobJson, storagePath } from "../../cmd/mr/client.ts";
import { putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { scratchFolder } from "../support/processes.ts";

const MAIN = join(import.meta.dirname, "..", "..", "cmd", "mr", "main.ts");
const NUMBERS =
  "import sys\nfor line in sys.stdin: print(int(line) % 3, line.strip(), sep='\\t')\n";
const NO_TWOS = `import os, sys
for line in sys.stdin:
    key, value = line.rstrip("\\n").split("\\t")
    if value == os.environ["BAD"]: raise ValueError(value)
    print(key, value)
`;

describe("mr replay", () => {
  let cluster: TestCluster;
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  before(async () => {
    cluster = await useCluster({ workers: 1, slots: 2 });
    folder = await scratchFolder("replay");
    await putText(cluster.client, "dfs-scripts", "numbers.py", NUMBERS);
    await putText(cluster.client, "dfs-scripts", "no_twos.py", NO_TWOS);
    const numbers = (from: number) =>
      Array.from({ length: 400 }, (_, i) => `${from + i}\r\n`).join("");
    await putText(cluster.client, "numbers", "a", numbers(0));
    await putText(
      cluster.client,
      "numbers",
      "b",
      numbers(400).replace("\r\n555\r\n", "\r\nfive\r\n"),
    );
    await putText(cluster.client, "good", "a", numbers(0));
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  const replay = (job: string, task: string) => {
    const dir = join(folder.path, `${job}-${task}`);
    const env = { ...process.env, MR_SERVER: cluster.url };
    const args = [MAIN, "replay", job, task, "--dir", dir];
    return new Promise<{ code: number; err: string; dir: string }>((resolve) => {
      execFile(process.execPath, args, { env }, (error, _out, err) => {
        resolve({ code: error === null ? 0 : Number(error.code), err, dir });
      });
    });
  };
  const fail = async (request: object) => {
    const job = await runJob(cluster.client, { max_attempts: 1, ...request });
    assert.equal(job.state, "failed");
    return job as JobJson & { error: NonNullable<JobJson["error"]> };
  };

  it("finds the line and its place in the blob that a mapper fails at", async () => {
    const job = await fail({ mapper: "numbers.py", data: "numbers", m_num: 1, r_num: 0 });
    const { code, err, dir } = await replay(job.id, job.error.task);
    assert.equal(code, 1, err);
    assert.match(err, /ValueError: invalid literal for int/, "the traceback is in the terminal");
    const { length } = Array.from({ length: 155 }, (_, i) => `${400 + i}\r\n`).join("");
    assert.match(
      err,
      new RegExp(`at record 556 of its input, byte ${length} of numbers/b:\\n +five`),
    );
    const byHand = spawnSync(join(dir, "run.sh"));
    assert.equal(byHand.status, 1);
    assert.match(byHand.stderr.toString(), /ValueError/);
    assert.match(await readFile(join(dir, "input"), "utf8"), /^0\n1\n[\s\S]*\nfive\n[\s\S]*799\n$/);
  });

  it("runs a failed reducer on the very pairs it had, though its job has ended", async () => {
    const job = await fail({
      mapper: "numbers.py",
      reducer: "no_twos.py",
      data: "good",
      m_num: 3,
      r_num: 2,
      env: { BAD: "200" },
      conf: { "mapreduce.partition.keycomparator.options": "-nr" },
    });
    const { code, err, dir } = await replay(job.id, job.error.task);
    assert.equal(code, 1, err);
    assert.match(err, /ValueError: 200[\s\S]*at record \d+ of its input:\n +2\\?.*200/);
    const keys = (await readFile(join(dir, "input"), "utf8")).split("\n").map((line) => line[0]);
    assert.deepEqual(
      keys,
      keys
        .toSorted()
        .toReversed()
        .toSorted((a, b) => Number(b) - Number(a)),
    );
    assert.match((await readFile(join(dir, "run.sh"))).toString(), /'BAD=200'/);
  });

  it("runs a task that has succeeded", async () => {
    const request = { mapper: "numbers.py", data: "good", m_num: 2, r_num: 0 };
    const job = await runJob(cluster.client, request);
    const { code, err, dir } = await replay(job.id, "m-00001");
    assert.equal(code, 0, err);
    assert.match(err, /it succeeded here/);
    const part = await cluster.client.fetch(storagePath("dfs-dest", `${job.id}/part-00001`));
    assert.equal(await readFile(join(dir, "output"), "utf8"), await part.text());
  });

  it("says what it cannot do", async () => {
    const job = await runJob(cluster.client, {
      mapper: "numbers.py",
      reducer: "cat",
      data: "good",
      m_num: 1,
    });
    for (const [id, task, why] of [
      [job.id, "r-00000", /what this task read cannot be had any more: map output/],
      [job.id, "m-00007", /has no task m-00007/],
      ["20200101-000000-aaaaaa", "m-00000", /no job/],
      [job.id, "nonsense", /a task is expected/],
    ] as [string, string, RegExp][]) {
      const { code, err } = await replay(id, task);
      assert.notEqual(code, 0);
      assert.match(err, why);
      assert.doesNotMatch(err, /^\s+at .*\.ts/m, "no stack");
    }
  });

  it("reads blobs by range and version", async () => {
    const path = storagePath("good", "a");
    const get = (headers: Record<string, string>) => fetch(`${cluster.url}${path}`, { headers });
    const whole = Buffer.from(await (await get({})).arrayBuffer());
    const some = await get({ range: "bytes=10-19" });
    assert.equal(some.status, 206);
    assert.equal(some.headers.get("content-range"), `bytes 10-19/${whole.length}`);
    assert.deepEqual(Buffer.from(await some.arrayBuffer()), whole.subarray(10, 20));
    assert.equal(
      (await (await get({ range: "bytes=5-" })).arrayBuffer()).byteLength,
      whole.length - 5,
    );
    assert.equal((await get({ range: `bytes=${whole.length}-` })).status, 416);
    assert.equal((await get({ range: "lines=1-2" })).status, 200);
    assert.equal((await get({ "if-match": '"other"' })).status, 412);
    const etag = some.headers.get("etag") ?? "";
    assert.equal((await get({ "if-match": etag })).status, 200);
  });
});
