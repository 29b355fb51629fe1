import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { outputOf, putExample, putText, runJob, useCluster } from "../support/cluster.ts";
import { scratchFolder } from "../support/processes.ts";

const MAIN = join(import.meta.dirname, "..", "..", "cmd", "mr", "main.ts");

describe("npm start", () => {
  it("counts the words of a folder through a cluster of its own, and stops", async () => {
    await using folder = await scratchFolder("demo");
    const text = join(folder.path, "text");
    await mkdir(text);
    await writeFile(join(text, "one.txt"), "the cat and the dog\n");
    await writeFile(join(text, "two.txt"), "the end");
    const args = [MAIN, "demo", text, "--dir", join(folder.path, "mr")];
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args);
    assert.match(stdout, /^ready http:\/\/127\.0\.0\.1:\d+$/m);
    assert.match(stdout, /^5 words; the most frequent:\n\nWORD +COUNT\nthe +3$/m);
    assert.match(stdout, /^output: dfs-dest\/\d{8}-/m);
    assert.match(stdout, /curl -N -X POST http:\/\/127\.0\.0\.1:8080\/request -d '\{"mapper"/);
    assert.match(stderr, /succeeded in .* 2 records/);
  });
});

describe("the examples", () => {
  it("do what they say", async () => {
    await using cluster = await useCluster({ workers: 1, slots: 2 });
    const { client } = cluster;
    const run = async (name: string, data: string, more: object = {}) => {
      await putExample(client, name);
      const scripts = { mapper: `${name}/mapper.py`, reducer: `${name}/reducer.py` };
      const job = await runJob(client, { ...scripts, data, m_num: 2, r_num: 1, ...more });
      assert.equal(job.state, "succeeded", JSON.stringify(job.error));
      return { job, text: (await outputOf(client, job.id)).toString() };
    };
    await putText(client, "documents", "all", "d1\tThe cat, the dog\nd2\tthe cat\n");
    const index = await run("inverted_index", "documents");
    assert.equal(index.text, "cat\td1,d2\ndog\td1\nthe\td1,d2\n");
    await putText(client, "numbers", "all", "a\t5\nb\t50\nc\t7.5\nd\t-1\n");
    const top = await run("top_n", "numbers", { env: { TOP_N: "2" } });
    assert.equal(top.text, "b\t50\nc\t7.5\n");
    await putText(
      client,
      "sales",
      "all",
      "order,2,9\ncustomer,1,Ada\norder,1,5\nnonsense\norder,1,3\n",
    );
    const joined = await run("join", "sales");
    assert.equal(joined.text, "1\tAda\t3\n1\tAda\t5\n");
    assert.deepEqual(joined.job.counters, { "join,unknown lines": 1 });
  });
});
