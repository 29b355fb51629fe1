import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { putFile, putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { seeded } from "../support/corpus.ts";
import { scratchFolder } from "../support/processes.ts";

/** 1024 for the figures of record. */
const MEGABYTES = Number(process.env.MR_LARGE_MB ?? 64);
const MB = 1024 * 1024;
/** What a worker may take, however much passes through it. */
const WORKER_BYTES = 1024 * MB;
const SLOTS = 2;
const RECORD_BYTES = 100;

const NOISE = (stream: string, end: string) => `import os, sys
chunk = b"x" * (1 << 20)
for i in range(int(os.environ["MEGABYTES"])):
    os.write(${stream}, chunk + b"${end}")
data = sys.stdin.buffer.read()
print(len(data))
`;

describe(`${MEGABYTES} MB`, () => {
  let cluster: TestCluster;
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  let records: string;
  before(async () => {
    cluster = await useCluster({ workers: 1, slots: SLOTS, env: { MR_LINE_MB: "16" } });
    folder = await scratchFolder("large");
    records = join(folder.path, "records");
    await writeRecords(records, Math.floor((MEGABYTES * MB) / RECORD_BYTES));
    await putFile(cluster.client, "records", "all", records);
    await putText(cluster.client, "small", "a", "one\ntwo\n");
    await putText(cluster.client, "dfs-scripts", "stderr.py", NOISE("2", "\\n"));
    await putText(cluster.client, "dfs-scripts", "line.py", NOISE("1", ""));
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  const run = (request: object) =>
    runJob(cluster.client, { env: { MEGABYTES: String(MEGABYTES) }, max_attempts: 1, ...request });
  const checkMemory = async () => {
    const { workers } = await cluster.client.json<{ workers: { pid: number }[] }>("/workers");
    for (const { pid } of workers) {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      const peak = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024;
      assert.ok(peak < WORKER_BYTES, `the worker took ${Math.round(peak / MB)} MB`);
    }
  };

  it("of stderr before the first line is read", async () => {
    const job = await run({ mapper: "stderr.py", data: "small", m_num: 1, r_num: 0 });
    assert.equal(job.state, "succeeded", job.error?.message);
    await checkMemory();
  });

  it("of stdout without a line end are refused by the line limit", async () => {
    const job = await run({ mapper: "line.py", data: "small", m_num: 1, r_num: 0 });
    assert.equal(job.state, "failed");
    assert.match(job.error?.message ?? "", /printed a line of more than 16777216 bytes/);
    await checkMemory();
  });

  it("that a reducer does not read, and that a combiner drops", async () => {
    const conf = { "stream.minRecWrittenToEnableSkip_": 0 };
    const unread = await run({ mapper: "cat", reducer: "true", data: "records", m_num: 2, conf });
    assert.equal(unread.state, "succeeded", unread.error?.message);
    const dropped = await run({
      mapper: "cat",
      combiner: "sed d",
      reducer: "cat",
      data: "records",
      m_num: 2,
    });
    assert.equal(dropped.state, "succeeded", dropped.error?.message);
    assert.equal(dropped.reduce.records, 0);
    await checkMemory();
  });

  for (const program of ["cat", "identity"])
    it(`sorted by ranges of keys with ${program}`, async () => {
      const request = { mapper: program, reducer: program, partitioner: "range", r_num: 8 };
      const job = await run({ ...request, data: "records", m_num: 16 });
      assert.equal(job.state, "succeeded", job.error?.message);
      const parts = join(cluster.dir, "store", job.output, "part-*");
      shell(`cat ${parts} | sort -c`);
      const sum = (from: string) => shell(`cat ${from} | sha256sum`);
      // Of sorted lines: the same multiset gives the same bytes.
      assert.equal(sum(parts), shell(`sort -S 512M -T ${folder.path} ${records} | sha256sum`));
      const sizes = shell(`stat -c %s ${parts}`).trim().split("\n").map(Number);
      assert.equal(sizes.length, 8);
      const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
      assert.ok(most < 2 * least, `the parts are uneven: ${sizes}`);
      await checkMemory();
    });
});

function shell(command: string): string {
  const env = { PATH: process.env.PATH, LC_ALL: "C" };
  const result = spawnSync("bash", ["-o", "pipefail", "-c", command], { env, maxBuffer: 1 << 26 });
  assert.equal(result.status, 0, `${command}: ${result.stderr}`);
  return result.stdout.toString();
}

/** `key TAB value`, random letters and digits. */
async function writeRecords(path: string, count: number): Promise<void> {
  const random = seeded(42);
  const letters = Buffer.from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
  const file = await open(path, "w");
  const block = Buffer.alloc(RECORD_BYTES * 8192);
  for (let done = 0; done < count; ) {
    const many = Math.min(8192, count - done);
    for (let at = 0; at < many * RECORD_BYTES; at += 5) {
      const bits = Math.floor(random() * 0x40000000);
      for (let i = 0; i < 5; i += 1) block[at + i] = letters[(bits >>> (6 * i)) & 63] ?? 0;
    }
    for (let i = 0; i < many; i += 1) {
      block[i * RECORD_BYTES + 10] = 9;
      block[(i + 1) * RECORD_BYTES - 1] = 10;
    }
    await file.write(block, 0, many * RECORD_BYTES);
    done += many;
  }
  await file.close();
}
