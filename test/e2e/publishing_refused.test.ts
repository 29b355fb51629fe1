import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { JobJson } from "../../cmd/mr/client.ts";
import { putText, type TestCluster, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";

/** What somebody puts into the folder of a result while its job runs, and what the job says of it. */
const OBSTACLES = {
  "a part's name is a folder's": { name: "part-00000/x", says: /part-00000: a name is in use/ },
  "a folder's name is a file's": { name: "", says: /part-0000\d: a name is in use/ },
  "the marker's name is a folder's": { name: "_SUCCESS/x", says: /_SUCCESS: a name is in use/ },
};

describe("a result that cannot be published", { concurrency: true }, () => {
  let cluster: TestCluster;
  before(async () => {
    cluster = await useCluster({ workers: 1, slots: 6 });
    await putText(cluster.client, "text", "a", "x\n");
    // It ends when it is told to.
    const waits = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)\n";
    await putText(cluster.client, "dfs-scripts", "waits.py", waits);
  });
  after(() => cluster[Symbol.asyncDispose]());

  for (const [what, { name, says }] of Object.entries(OBSTACLES))
    it(`fails its job, which says why, and leaves nothing staged: ${what}`, async () => {
      const { client, dir } = cluster;
      const folder = `made-${Object.keys(OBSTACLES).indexOf(what)}`;
      const request = { mapper: `waits.py ${join(dir, folder)}`, data: "text", m_num: 2, r_num: 0 };
      const { id } = await client.json<JobJson>("/request", {
        method: "POST",
        headers: { prefer: "respond-async" },
        body: JSON.stringify({ ...request, output: `results/${folder}` }),
      });
      const job = () => client.json<JobJson>(`/jobs/${id}`);
      await until("its tasks", async () => (await job()).state === "map");
      await putText(client, "results", [folder, name].filter(Boolean).join("/"), "mine\n");
      await writeFile(join(dir, folder), "");
      const ended = await until("its end", async () => {
        const now = await job();
        return now.state === "failed" && now;
      });
      assert.equal(ended.error?.class, "input");
      assert.match(ended.error?.message ?? "", says);
      const staged = join(dir, "store", ".staging", "results", id);
      await until("it to be swept", () => !existsSync(staged));
    });
});
