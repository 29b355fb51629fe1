import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Agent, get, request } from "node:http";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { JobJson } from "../../cmd/mr/client.ts";
import { putText, type TestCluster, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";

const PIECES = 20;
const PIECE = randomBytes(64 * 1024);

describe("a proxy that is told to stop", () => {
  let cluster: TestCluster;
  before(async () => {
    cluster = await useCluster({ workers: 1 });
    await putText(cluster.client, "text", "a", "b\na\n");
    await putText(cluster.client, "text", "large", Buffer.concat(Array(PIECES * 16).fill(PIECE)));
  });
  after(() => cluster[Symbol.asyncDispose]());

  const pid = async () => (await cluster.client.json<{ pid: number }>("/healthz")).pid;
  const isAlive = (of: number) => {
    try {
      return process.kill(of, 0);
    } catch {
      return false;
    }
  };

  it("lets uploads, downloads and streams come to their end, and takes nothing new", async () => {
    const proxy = await pid();
    const upload = request(`${cluster.url}/storage/text/up`, { method: "PUT", agent: false });
    const uploaded = new Promise<number | undefined>((resolve, reject) => {
      upload.once("response", (response) => resolve(response.resume().statusCode));
      upload.once("error", reject);
    });
    upload.write(PIECE);
    const download = await new Promise<import("node:http").IncomingMessage>((resolve, reject) =>
      get(`${cluster.url}/storage/text/large`, { agent: false }, resolve).once("error", reject),
    );
    const body = { mapper: "/bin/sleep 2", data: "text/a", r_num: 0, name: "followed" };
    const stream = await fetch(`${cluster.url}/request`, {
      method: "POST",
      body: JSON.stringify({ ...body, conf: { "stream.minRecWrittenToEnableSkip_": "0" } }),
    });
    await until("the job", async () => {
      const { jobs } = await cluster.client.json<{ jobs: JobJson[] }>("/jobs?name=followed");
      return jobs[0]?.state === "map";
    });
    process.kill(proxy, "SIGTERM");
    await until("no more requests to be taken", () =>
      fetch(`${cluster.url}/healthz`).then(
        async (answer) => ((await answer.json()) as { pid: number }).pid !== proxy,
        () => true,
      ),
    );
    assert.ok(isAlive(proxy));
    for (let i = 1; i < PIECES; i += 1) {
      upload.write(PIECE);
      await delay(10);
    }
    upload.end();
    assert.equal(await uploaded, 201);
    let size = 0;
    for await (const chunk of download) size += (chunk as Buffer).length;
    assert.equal(size, PIECES * 16 * PIECE.length);
    const lines = (await stream.text()).trim().split("\n");
    assert.equal((JSON.parse(lines.at(-1) ?? "") as JobJson).state, "succeeded");
    await until("its end", () => !isAlive(proxy));
    await until("the next one", async () => (await pid().catch(() => proxy)) !== proxy);
    const up = await cluster.client.fetch("/storage/text/up");
    assert.equal((await up.arrayBuffer()).byteLength, PIECES * PIECE.length);
  });

  it("is ready when it listens, whoever leads", async () => {
    const [leader] = [await cluster.client.json<{ pid: number }>("/leader")];
    process.kill(leader.pid, "SIGSTOP");
    try {
      await until("no leader", async () => {
        const answer = await fetch(`${cluster.url}/leader`);
        await answer.body?.cancel();
        return answer.status === 503;
      });
      const ready = await fetch(`${cluster.url}/readyz`);
      assert.equal(ready.status, 200);
      assert.deepEqual(await ready.json(), { status: "ready", workers: null });
      const text = await cluster.client.fetch("/storage/text/a");
      assert.equal(await text.text(), "b\na\n");
    } finally {
      process.kill(leader.pid, "SIGCONT");
    }
  });

  it("keeps connections for longer than balancers do", async () => {
    const agent = new Agent({ keepAlive: true });
    const { headers } = await new Promise<import("node:http").IncomingMessage>((resolve, reject) =>
      get(`${cluster.url}/healthz`, { agent }, resolve).once("error", reject),
    );
    agent.destroy();
    const kept = String(headers["keep-alive"]);
    assert.ok(Number(/timeout=(\d+)/.exec(kept)?.[1]) > 75, kept);
  });
});
