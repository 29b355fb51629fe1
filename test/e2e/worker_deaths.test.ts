import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { JobJson } from "../../cmd/mr/client.ts";
import { outputOf, putText, runJob, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";

/** Ends the worker that it runs on. */
const KILLS = `import os, signal

def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])

pid = os.getpid()
while "worker/main.ts" not in open(f"/proc/{pid}/cmdline").read():
    pid = parent(pid)
os.kill(pid, signal.SIGKILL)
`;

describe("a cluster on one machine", () => {
  it("outlives a job that ends its worker, again and again, until that job fails", async () => {
    await using cluster = await useCluster({ workers: 1, slots: 1 });
    const { client } = cluster;
    await putText(client, "text", "a", "x\n");
    await putText(client, "dfs-scripts", "kills.py", KILLS);
    const { id } = await client.json<JobJson>("/request", {
      method: "POST",
      headers: { prefer: "respond-async" },
      body: JSON.stringify({ mapper: "kills.py", data: "text", m_num: 1, r_num: 0 }),
    });
    const ended = async () => {
      const job = await client.json<JobJson>(`/jobs/${id}`);
      return job.state === "failed" && job;
    };
    const { error } = await until("its end", ended, 100_000);
    assert.match(error?.message ?? "", /its worker died 6 times/);
    const job = await runJob(client, { mapper: "/bin/cat", data: "text", r_num: 0 });
    assert.equal(job.state, "succeeded");
    assert.equal(String(await outputOf(client, job.id)), "x\n");
  });
});
