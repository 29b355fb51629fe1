import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  outputOf,
  putExample,
  putFile,
  runJob,
  type TestCluster,
  useCluster,
} from "../support/cluster.ts";
import { writeCorpus } from "../support/corpus.ts";
import { pipeline, SORT_BY_KEY, sortedLines } from "../support/oracle.ts";
import { scratchFolder } from "../support/processes.ts";
import { useAzurite, useEtcd } from "../support/servers.ts";

const MB = 1_000_000;
const SCRIPTS = join(import.meta.dirname, "..", "..", "examples", "py_scripts", "word_count");

/** Counts words of a corpus on the cluster and by the shell, and compares the bytes. */
async function countAndCompare(cluster: TestCluster, bytes: number): Promise<void> {
  await using folder = await scratchFolder("corpus");
  const files = await writeCorpus(folder.path, { files: 20, bytesPerFile: bytes / 20, seed: 42 });
  await putExample(cluster.client, "word_count");
  for (const [i, path] of files.entries()) await putFile(cluster.client, "text", `${i}.txt`, path);
  const job = await runJob(cluster.client, {
    mapper: "word_count/mapper.py",
    reducer: "word_count/reducer.py",
    data: "text",
    m_num: 20,
    r_num: 5,
  });
  assert.equal(job.state, "succeeded", JSON.stringify(job.error));
  assert.deepEqual([job.map.done, job.map.total, job.reduce.done], [20, 20, 5]);
  const actual = sortedLines(await outputOf(cluster.client, job.id));
  const expected = pipeline(
    `cat ${files.join(" ")} | python3 ${SCRIPTS}/mapper.py | ${SORT_BY_KEY} | python3 ${SCRIPTS}/reducer.py | sort`,
  );
  const digest = (data: Buffer) => createHash("sha256").update(data).digest("hex");
  assert.equal(digest(actual), digest(expected));
  assert.ok(expected.length > 10_000);
}

describe("word count against the shell", () => {
  it("200 MB in 20 files on the embedded backends", async () => {
    await using cluster = await useCluster();
    await countAndCompare(cluster, 200 * MB);
  });

  it("20 MB in 20 files on etcd and Azurite", async () => {
    await using etcd = await useEtcd();
    await using azurite = await useAzurite();
    await using cluster = await useCluster({
      etcd: etcd.address,
      blob: azurite.connectionString,
    });
    await countAndCompare(cluster, 20 * MB);
  });
});
