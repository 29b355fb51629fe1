import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { putText, useCluster } from "../support/cluster.ts";
import { openSession } from "../support/plain_worker.ts";
import { until } from "../support/processes.ts";

describe("a plain gRPC worker", () => {
  it("says hello, pulls a task, hands in a part, and is told that it won", async () => {
    await using cluster = await useCluster({ workers: 1, slots: 1 });
    const { client } = cluster;
    // The cluster's own worker is kept busy.
    await putText(client, "dfs-scripts", "sleep.py", "import time\ntime.sleep(600)\n");
    await putText(client, "dfs-scripts", "never.py", "raise SystemExit(9)\n");
    await putText(client, "text", "a", "x\n");
    const submit = async (mapper: string) => {
      const body = JSON.stringify({ mapper, data: "text", m_num: 1, r_num: 0 });
      const init = { method: "POST", headers: { prefer: "respond-async" }, body };
      return client.json<{ id: string }>("/request", init);
    };
    const blocker = await submit("sleep.py");
    await until("a busy worker", async () => {
      const job = await client.json<{ map: { running: number } }>(`/jobs/${blocker.id}`);
      return job.map.running === 1;
    });
    const { address } = await client.json<{ address: string }>("/leader");
    const { stream, heard, close } = openSession(address);
    try {
      stream.write({ hello: { workerId: "plain-grpc", host: "test", pid: 1, slots: 1 } });
      const welcome = await until("welcome", () =>
        heard.find(({ message }) => message === "welcome"),
      );
      assert.ok(Number(welcome.welcome?.epoch) > 0);
      const job = await submit("never.py");
      stream.write({ ready: { free: 1, grantsSeen: 0 } });
      const { grant } = await until("a grant", () =>
        heard.find(({ message }) => message === "grant"),
      );
      assert.ok(grant);
      assert.ok(grant.attempt.startsWith(`${job.id}/m-00000/`));
      assert.deepEqual(
        grant.map?.ranges.map(({ name }) => name),
        ["a"],
      );
      stream.write({ heartbeat: { seq: 1, attempts: [{ attempt: grant.attempt }] } });
      await until("a renewal", () => heard.find(({ message }) => message === "renewed"));
      const store = new LocalStore(join(cluster.dir, "store"));
      const staged = await store.stage("dfs-dest", `${job.id}/part-00000`, grant.attempt);
      await staged.write(Buffer.from("by hand\n"));
      const receipt = await staged.seal();
      const stats = { recordsIn: 1, counters: { "made,by hand": 1 } };
      stream.write({ completed: { attempt: grant.attempt, output: { part: receipt }, stats } });
      const { settled } = await until("settled", () =>
        heard.find(({ message }) => message === "settled"),
      );
      assert.deepEqual(settled, { attempt: grant.attempt, won: true });
      const output = await until("the output", async () => {
        const response = await fetch(`${cluster.url}/jobs/${job.id}/output`);
        return response.ok && response.text();
      });
      assert.equal(output, "by hand\n");
      stream.write({ goodbye: {} });
      await until("its leave", async () => {
        const { workers } = await client.json<{ workers: { id: string }[] }>("/workers");
        return workers.every(({ id }) => id !== "plain-grpc");
      });
    } finally {
      stream.end();
      close();
      await client.json(`/jobs/${blocker.id}`, { method: "DELETE" });
    }
  });

  it("that makes no sense is refused, and disturbs nobody", async () => {
    await using cluster = await useCluster({ workers: 1, slots: 1 });
    const { address } = await cluster.client.json<{ address: string }>("/leader");
    const nonsense: object[][] = [
      [{ ready: { free: 1 } }],
      [{ hello: { workerId: "../x", slots: 1 } }],
      [{ hello: { workerId: "w", slots: 0 } }],
      [{ hello: { workerId: "w", slots: 1, attempts: ["a/b"] } }],
      [{ hello: { workerId: "w", slots: 1 } }, { completed: { attempt: "no-such" } }],
      [{ hello: { workerId: "w", slots: 1 } }, { hello: { workerId: "w", slots: 1 } }],
      [{}],
    ];
    for (const messages of nonsense) {
      const { stream, failed, close } = openSession(address);
      for (const message of messages) stream.write(message);
      assert.equal((await failed).code, 3, JSON.stringify(messages)); // INVALID_ARGUMENT
      close();
    }
    const { workers } = await cluster.client.json<{ workers: { state: string }[] }>("/workers");
    assert.ok(workers.some(({ state }) => state === "connected"));
  });
});
