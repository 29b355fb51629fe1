import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type JobJson, ServerError } from "../../cmd/mr/client.ts";
import { outputOf, putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";

const SLOW_WORDS = `import sys, time
for line in sys.stdin:
    time.sleep(0.02)
    for word in line.split(): print(word, 1, sep="\\t")
`;
const SUM = `import sys
from itertools import groupby
for key, lines in groupby((l.rstrip("\\n").split("\\t", 1) for l in sys.stdin), lambda l: l[0]):
    print(key, sum(int(v) for _, v in lines), sep="\\t")
`;
const FAILS = "import sys\nsys.stdin.read()\nsys.exit(5)\n";
const SWAP = "import sys\nfor l in sys.stdin:\n    w, n = l.split()\n    print(n, w, sep='\\t')\n";

const lines = Array.from({ length: 120 }, (_, i) => `w${i % 7} w${i % 3} x\n`);
const counts = new Map<string, number>();
for (const word of lines.flatMap((line) => line.trim().split(" ")))
  counts.set(word, (counts.get(word) ?? 0) + 1);
const SORTED = [...counts].map(([word, n]) => `${n}\t${word}`).toSorted();

describe("a job with steps", () => {
  let cluster: TestCluster;
  before(async () => {
    cluster = await useCluster({ masters: 2, workers: 2, slots: 2 });
    const scripts = { "words.py": SLOW_WORDS, "sum.py": SUM, "fails.py": FAILS, "swap.py": SWAP };
    for (const [name, text] of Object.entries(scripts))
      await putText(cluster.client, "dfs-scripts", name, text);
    await putText(cluster.client, "text", "a", lines.join(""));
  });
  after(() => cluster[Symbol.asyncDispose]());

  const count = { mapper: "words.py", combiner: "sum", reducer: "sum.py", m_num: 4, r_num: 3 };
  const sort = { mapper: "swap.py", reducer: "cat", r_num: 1 };
  const stored = async () =>
    (await cluster.client.list("dfs-intermediate", "")).map(({ name }) => name);
  const resultOf = async (id: string) =>
    (await outputOf(cluster.client, id)).toString().split("\n").slice(0, -1).toSorted();

  it("shows every step, survives its leader, and leaves nothing between its steps", async () => {
    const steps = [count, { mapper: "identity", reducer: "identity", r_num: 2 }, sort];
    const seen: JobJson[] = [];
    let killed = false;
    for await (const job of cluster.client.run(
      { data: "text", steps },
      AbortSignal.timeout(60_000),
    )) {
      seen.push(job);
      if (killed || (job.steps?.[0]?.map?.done ?? 0) === 0) continue;
      killed = true;
      const { pid } = await cluster.client.json<{ pid: number }>("/leader");
      process.kill(pid, "SIGKILL");
    }
    const last = seen.at(-1) as JobJson;
    assert.equal(last.state, "succeeded", JSON.stringify(last.error));
    assert.deepEqual(
      last.steps?.map(({ state }) => state),
      ["succeeded", "succeeded", "succeeded"],
    );
    assert.ok(seen.some(({ steps: shown }) => shown?.[2]?.state === "waiting"));
    assert.deepEqual(await resultOf(last.id), SORTED);
    const { jobs } = await cluster.client.json<{ jobs: JobJson[] }>("/jobs");
    assert.deepEqual(
      jobs.map(({ id }) => id),
      [last.id],
      "its steps are not in the list",
    );
    const second = await cluster.client.json<JobJson>(`/jobs/${last.id}.2`);
    assert.equal(second.state, "succeeded");
    await until("nothing in dfs-intermediate", async () => (await stored()).length === 0, 60_000);
  });

  it("goes on from the step that failed", async () => {
    const broken = { ...sort, mapper: "fails.py" };
    const request = { data: "text", steps: [count, broken], max_attempts: 1 };
    const failed = await runJob(cluster.client, request);
    assert.equal(failed.state, "failed");
    assert.match(failed.error?.message ?? "", /^step 2: the script exited with 5/);
    const resumed = await runJob(cluster.client, {
      data: "text",
      steps: [count, sort],
      from: failed.id,
    });
    assert.equal(resumed.state, "succeeded", JSON.stringify(resumed.error));
    assert.deepEqual(
      resumed.steps?.map(({ state }) => state),
      ["reused", "succeeded"],
    );
    assert.deepEqual(await resultOf(resumed.id), SORTED);
    const { tasks } = await cluster.client.json<{ tasks: { id: string }[] }>(
      `/jobs/${resumed.id}/tasks`,
    );
    assert.ok(tasks.length > 0 && tasks.every(({ id }) => id.startsWith(`${resumed.id}.2/`)));

    const differs = { ...count, r_num: 2 };
    const refusals: [object, RegExp][] = [
      [{ steps: [differs, sort], from: failed.id }, /steps\.0: differs from that of/],
      [{ steps: [count], from: failed.id }, /steps: step 2 is missing/],
      [
        { steps: [count, sort], from: resumed.id },
        /from: not the id of a job with steps that has failed/,
      ],
    ];
    for (const [more, why] of refusals)
      await assert.rejects(runJob(cluster.client, { data: "text", ...more }), (error) => {
        assert.ok(error instanceof ServerError && error.status === 400);
        assert.match(error.message, why);
        return true;
      });
  });

  it("is cancelled as one", async () => {
    const slow = { mapper: "words.py", r_num: 0, m_num: 1 };
    const headers = { prefer: "respond-async" };
    const body = JSON.stringify({ data: "text", steps: [slow, slow] });
    const { id } = await cluster.client.json<JobJson>("/request", {
      method: "POST",
      headers,
      body,
    });
    const job = () => cluster.client.json<JobJson>(`/jobs/${id}`);
    await until("a running step", async () => (await job()).map.running > 0);
    const cancelled = await cluster.client.json<JobJson>(`/jobs/${id}`, { method: "DELETE" });
    assert.equal(cancelled.state, "cancelled");
    assert.deepEqual(
      (await job()).steps?.map(({ state }) => state),
      ["cancelled", "not run"],
    );
    const { workers } = await cluster.client.json<{ workers: { attempts: string[] }[] }>(
      "/workers",
    );
    await until("idle workers", async () => workers.length > 0 && (await idle()));
    async function idle() {
      const now = await cluster.client.json<{ workers: { attempts: string[] }[] }>("/workers");
      return now.workers.every(({ attempts }) => attempts.length === 0);
    }
  });
});
