import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { outputOf, processesIn, putText } from "../support/cluster.ts";
import { useFaultyCluster } from "../support/faulty_cluster.ts";
import { KnownJobs } from "../support/known_jobs.ts";
import { until } from "../support/processes.ts";

describe("input", () => {
  it("that changes under a running job fails it, and is never mixed", async () => {
    await using cluster = await useFaultyCluster({ workers: 1 });
    const { client } = cluster;
    const jobs = await KnownJobs.prepare(client, { seed: 1, lines: 300 });
    cluster.points.arm("worker.map.before-upload", "wait");
    const id = await cluster.submit(jobs.request("count", { maps: 4 }));
    await cluster.points.hit("worker.map.before-upload");
    await putText(client, "known", "b", "other words\n");
    cluster.points.release("worker.map.before-upload");
    const job = await cluster.ended(id);
    assert.equal(job.state, "failed");
    assert.equal(job.error?.class, "input");
    assert.match(job.error?.message ?? "", /known\/b was changed/);
    assert.ok(!existsSync(join(cluster.dir, "store", "dfs-dest", id)), "a part is visible");
  });
});

const PICKY = `import sys
for line in sys.stdin:
    if "poison" in line: raise ValueError("cannot digest " + line)
    for word in line.split(): print(word + "\\t1")
`;

describe("poison records", () => {
  const lines = Array.from({ length: 3_000 }, (_, i) => `line ${i} of many`);
  for (const at of [0, 700, 701, 1_499, 1_500, 2_999]) lines[at] = `poison ${at}`;
  const good = lines.filter((line) => !line.startsWith("poison"));
  const bad = lines.filter((line) => line.startsWith("poison"));

  it("are set aside one by one; all others are in the result", async () => {
    await using cluster = await useFaultyCluster({ workers: 2, slots: 2 });
    const { client } = cluster;
    await putText(client, "dfs-scripts", "picky.py", PICKY);
    await putText(
      client,
      "dfs-scripts",
      "same.py",
      "import sys\nsys.stdout.write(sys.stdin.read())\n",
    );
    await putText(client, "mixed", "a.txt", lines.slice(0, 1_500).join("\r\n"));
    await putText(client, "mixed", "b.gz", gzipSync(lines.slice(1_500).join("\n")));
    const expected = good.flatMap((line) => line.split(" ")).map((word) => `${word}\t1`);
    const request = { mapper: "picky.py", data: "mixed", m_num: 3, max_bad_records: 6 };
    for (const more of [{ reducer: "same.py", r_num: 2 }, { r_num: 0 }]) {
      const job = await cluster.ended(await cluster.submit({ ...request, ...more }));
      assert.equal(job.state, "succeeded", JSON.stringify(job.error));
      assert.equal(job.bad_records, 6);
      const output = (await outputOf(client, job.id)).toString().trimEnd().split("\n");
      assert.deepEqual(output.toSorted(), expected.toSorted());
      const { objects } = await client.json<{ objects: { name: string }[] }>(
        `/storage/dfs-dest?prefix=${job.id}/_bad/`,
      );
      const aside = await Promise.all(
        objects.map(async ({ name }) => (await client.fetch(`/storage/dfs-dest/${name}`)).text()),
      );
      assert.equal(aside.join(""), bad.map((line) => `${line}\n`).join(""));
    }
  });

  it("are found early in much input, by a mapper that stops there and leaves files behind", async () => {
    await using cluster = await useFaultyCluster({ workers: 1 });
    const { client } = cluster;
    const messy = `import os, sys
os.mkdir("once")
open(os.environ["TMPDIR"] + "/buffer", "a").write("x")
assert os.path.getsize(os.environ["TMPDIR"] + "/buffer") == 1
for line in sys.stdin:
    if "poison" in line: os._exit(7)
    sys.stdout.write(line)
`;
    await putText(client, "dfs-scripts", "messy.py", messy);
    const many = Array.from({ length: 60_000 }, (_, i) => `line ${i} ${"of many ".repeat(5)}`);
    many[10] = "poison";
    await putText(client, "much", "a.txt", `${many.join("\n")}\n`);
    const request = { mapper: "messy.py", data: "much", m_num: 1, r_num: 0, max_bad_records: 1 };
    const job = await cluster.ended(await cluster.submit(request));
    assert.equal(job.state, "succeeded", JSON.stringify(job.error));
    assert.equal(job.bad_records, 1);
    const output = (await outputOf(client, job.id)).toString();
    assert.equal(output, `${many.filter((line) => line !== "poison").join("\n")}\n`);
  });

  it("are not looked for where there is none: a mapper that fails on nothing fails its job", async () => {
    await using cluster = await useFaultyCluster({ workers: 1 });
    const { client } = cluster;
    await putText(client, "dfs-scripts", "fails.py", "import sys\nsys.exit(1)\n");
    await putText(client, "empty", "a.txt", "");
    const request = { mapper: "fails.py", data: "empty", m_num: 1, r_num: 0, max_bad_records: 9 };
    const job = await cluster.ended(await cluster.submit(request));
    assert.equal(job.state, "failed");
    assert.match(job.error?.message ?? "", /exited with 1/);
    assert.equal(job.bad_records, 0);
  });

  it("in greater number than the job allows fail it, and nothing of it is visible", async () => {
    await using cluster = await useFaultyCluster({ workers: 2 });
    const { client } = cluster;
    await putText(client, "dfs-scripts", "picky.py", PICKY);
    await putText(client, "mixed", "a.txt", lines.join("\n"));
    for (const m_num of [1, 6]) {
      const request = { mapper: "picky.py", data: "mixed", m_num, r_num: 0, max_bad_records: 5 };
      const job = await cluster.ended(await cluster.submit({ ...request, max_attempts: 1 }));
      assert.equal(job.state, "failed");
      assert.equal(job.error?.class, "user");
      assert.match(job.error?.message ?? "", /max_bad_records/);
      assert.ok(
        !existsSync(join(cluster.dir, "store", "dfs-dest", job.id)),
        "something is visible",
      );
    }
  });
});

describe("a cancelled job", () => {
  it("stops every script and leaves no object", async () => {
    await using cluster = await useFaultyCluster({ workers: 2, slots: 2, remote: true });
    const { client } = cluster;
    const jobs = await KnownJobs.prepare(client, { seed: 2, lines: 300 });
    for (const stage of ["map", "reduce"] as const) {
      const point = stage === "map" ? "worker.map.after-publish" : "worker.reduce.after-seal";
      cluster.points.arm(point, "wait");
      const id = await cluster.submit(jobs.request("count", { maps: 6, sleep: 1 }));
      await cluster.points.hit(point);
      await client.json(`/jobs/${id}`, { method: "DELETE" });
      await until(
        "the end of its scripts",
        () => processesIn(join(cluster.dir, "scratch")).length === 0,
      );
      cluster.points.release(point);
      for (const container of ["dfs-intermediate", "dfs-dest"])
        await until(`no object in ${container}`, async () => {
          const path = `/storage/${container}?prefix=${id}/`;
          const { objects } = await client.json<{ objects: object[] }>(path);
          return objects.length === 0;
        });
      assert.equal((await cluster.job(id)).state, "cancelled");
    }
  });
});
