import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Client, type JobJson } from "../../cmd/mr/client.ts";
import { putText, type TestCluster, useCluster } from "../support/cluster.ts";
import { scratchFolder, until } from "../support/processes.ts";

const headersOf = (name: string) => ({
  authorization: `Bearer ${name}-secret`,
  "idempotency-key": "the same",
});
/** Of 2,048 streams that the connection to a leader has, each of these would take one for ever. */
const WAVES = 26;
/** As many streams as one client may have. */
const IN_A_WAVE = 100;

describe("clients that leave before they are answered", () => {
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  let cluster: TestCluster;
  let alice: Client;
  let leader: number;
  const body = JSON.stringify({ mapper: "/bin/sleep 600", data: "box", m_num: 1, r_num: 0 });

  before(async () => {
    folder = await scratchFolder("leave");
    const file = join(folder.path, "tokens");
    const lines = ["alice", "bob"].map((name) => {
      const hash = createHash("sha256").update(`${name}-secret`).digest("hex");
      return `${name} sha256:${hash} *\n`;
    });
    await writeFile(file, lines.join(""));
    cluster = await useCluster({ workers: 1, env: { MR_TOKENS: file } });
    alice = new Client(cluster.url, "alice-secret");
    await putText(alice, "box", "a", "a\n");
    leader = (await alice.json<{ pid: number }>("/leader")).pid;
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  /** All of them are in the proxy, and wait for the leader, when their clients go. */
  async function leave(name: string, method: string, path: string): Promise<void> {
    process.kill(leader, "SIGSTOP");
    try {
      const sent = Array.from({ length: IN_A_WAVE }, () => {
        const headers = headersOf(name);
        const one = request(`${cluster.url}${path}`, { method, headers, agent: false });
        one.on("error", () => undefined);
        const { promise, resolve } = Promise.withResolvers<void>();
        one.once("finish", resolve).end(method === "POST" ? body : undefined);
        return { one, promise };
      });
      await Promise.all(sent.map(({ promise }) => promise));
      for (let i = 0; i < 3; i += 1) await alice.json("/healthz");
      for (const { one } of sent) one.destroy();
      for (let i = 0; i < 3; i += 1) await alice.json("/healthz");
    } finally {
      process.kill(leader, "SIGCONT");
    }
    await alice.json("/jobs");
  }

  it("leave nothing that would be counted as theirs", async () => {
    const first = await alice.json<JobJson>("/request", {
      method: "POST",
      headers: { ...headersOf("alice"), prefer: "respond-async" },
      body,
    });
    for (let i = 0; i < 3; i += 1) await leave("alice", "GET", `/jobs/${first.id}/events`);
    for (let i = 0; i < 3; i += 1) await leave("alice", "GET", `/jobs/${first.id}/output`);
    for await (const { id } of alice.watch(first.id, AbortSignal.timeout(20_000))) {
      assert.equal(id, first.id);
      break;
    }
    await until("room for a transfer", async () => {
      const url = `${cluster.url}/jobs/${first.id}/output`;
      const { status } = await fetch(url, { headers: headersOf("alice") });
      return status === 409;
    });
  });

  it("leave no stream of progress behind, however often they ask", async () => {
    for (let i = 0; i < WAVES; i += 1) await leave("bob", "POST", "/request");
    const answer = await fetch(`${cluster.url}/jobs`, {
      headers: headersOf("bob"),
      signal: AbortSignal.timeout(8_000),
    });
    assert.equal(answer.status, 200);
    const { jobs } = (await answer.json()) as { jobs: JobJson[] };
    assert.ok(jobs.length >= 1);
  });
});
