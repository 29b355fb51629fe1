import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { JobJson } from "../../cmd/mr/client.ts";
import { putText, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";

type Queue = { tasks: number; running: number; jobs: number };

describe("the queue, by which workers are scaled", () => {
  it("counts what waits and what runs, of plain jobs and of steps, and comes to nothing", async () => {
    await using cluster = await useCluster({ workers: 1, slots: 1 });
    const { client } = cluster;
    const queue = () => client.json<Queue>("/queue");
    assert.deepEqual(await queue(), { tasks: 0, running: 0, jobs: 0 });
    await putText(client, "text", "a", "x\n".repeat(50));
    await putText(client, "dfs-scripts", "sleep.py", "import time\ntime.sleep(600)\n");
    const submit = (request: object) =>
      client.json<JobJson>("/request", {
        method: "POST",
        headers: { prefer: "respond-async" },
        body: JSON.stringify({ data: "text", ...request }),
      });
    const sleeps = { mapper: "sleep.py", m_num: 7, r_num: 0 };
    const plain = await submit(sleeps);
    const steps = await submit({ steps: [{ ...sleeps, m_num: 5 }] });
    const seen = await until("two jobs with a plan", async () => {
      const now = await queue();
      return now.tasks === 12 && now.running > 0 && now;
    });
    assert.equal(seen.jobs, 2);
    const metrics = await (await client.fetch("/metrics")).text();
    assert.match(metrics, /^mr_tasks_open 12$/m);
    assert.match(metrics, new RegExp(`^mr_tasks_waiting ${12 - seen.running}$`, "m"));
    for (const { id } of [plain, steps]) await client.json(`/jobs/${id}`, { method: "DELETE" });
    await until("nothing to do", async () => (await queue()).tasks === 0);
  });

  it("wants a worker for a job that nobody is there for", async () => {
    await using cluster = await useCluster({ workers: 0 });
    await putText(cluster.client, "text", "a", "x\n");
    await cluster.client.json("/request", {
      method: "POST",
      headers: { prefer: "respond-async" },
      body: JSON.stringify({ mapper: "/bin/cat", data: "text", r_num: 0 }),
    });
    await until("a task", async () => (await cluster.client.json<Queue>("/queue")).tasks > 0);
  });
});
