import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { JobJson } from "../../cmd/mr/client.ts";
import { putText, type TestCluster, useCluster } from "../support/cluster.ts";

const JOBS = 120;
/** As long as names of partitioned data are. */
const LONG = `year=2026/month=11/day=28/${"x".repeat(70)}/application=checkout/${"y".repeat(70)}`;

type Page = { jobs: JobJson[]; next?: string };

describe("lists of a cluster with many large jobs", () => {
  let cluster: TestCluster;
  const ids: string[] = [];

  before(async () => {
    cluster = await useCluster({ workers: 1, slots: 1 });
    await putText(cluster.client, "box", `${LONG}/part`, "a\n");
    const data = Array.from({ length: 1_000 }, () => `box/${LONG}/part`);
    for (let i = 0; i < JOBS; i += 1) {
      const name = i % 10 === 0 ? `tenth ${i}` : `job ${i}`;
      const body = JSON.stringify({ mapper: "/bin/sleep 600", data, m_num: 1, r_num: 0, name });
      const job = await cluster.client.json<JobJson>("/request", {
        method: "POST",
        headers: { prefer: "respond-async" },
        body,
      });
      ids.push(job.id);
    }
    await cluster.client.json(`/jobs/${ids[5]}`, { method: "DELETE" });
  });
  after(() => cluster[Symbol.asyncDispose]());

  const get = async (path: string) => {
    const response = await cluster.client.fetch(path);
    const text = await response.text();
    assert.ok(text.length < 300_000, `${path}: ${text.length} characters`);
    return { text, link: response.headers.get("link") };
  };
  const page = async (path: string) => JSON.parse((await get(path)).text) as Page;

  it("answers each of them, and says little of each job", async () => {
    for (const path of ["/jobs", "/tasks", "/workers", "/metrics", "/queue", "/readyz"])
      await get(path);
    const { jobs } = await page("/jobs?limit=1");
    assert.equal(jobs[0]?.id, ids.at(-1));
    assert.equal(jobs[0]?.data.length, 4);
    assert.match(String(jobs[0]?.data.at(-1)), /997 more/);
    const whole = await cluster.client.json<JobJson>(`/jobs/${ids.at(-1)}`);
    assert.equal(whole.data.length, 1_000);
  });

  it("gives all of them, page by page, the newest first and each once", async () => {
    const seen: string[] = [];
    let path = "/jobs?limit=50";
    for (let pages = 1; ; pages += 1) {
      const { jobs, next } = await page(path);
      seen.push(...jobs.map(({ id }) => id));
      if (next === undefined) break;
      assert.ok(pages < 10);
      path = `/jobs?limit=50&after=${next}`;
    }
    assert.deepEqual(seen, ids.toReversed());
    const first = await get("/jobs?limit=50&name=job");
    assert.match(first.link ?? "", /^<\/jobs\?limit=50&name=job&after=\d+>; rel="next"$/);
  });

  it("finds jobs by their state and name", async () => {
    const cancelled = await page("/jobs?state=cancelled");
    assert.deepEqual(
      cancelled.jobs.map(({ id }) => id),
      [ids[5]],
    );
    const tenth = await page("/jobs?name=tenth&limit=1000");
    assert.equal(tenth.jobs.length, 12);
    const active = await page("/tasks?limit=1000");
    assert.equal(active.jobs.length, JOBS - 1);
    assert.equal(active.next, undefined);
  });

  it("counts without them", async () => {
    const queue = await cluster.client.json<{ jobs: number; tasks: number }>("/queue");
    assert.equal(queue.jobs, JOBS - 1);
    assert.equal(queue.tasks, JOBS - 1);
    const { text } = await get("/metrics");
    assert.match(text, /^mr_jobs\{state="cancelled"\} 1$/m);
    assert.match(text, /^mr_jobs\{state="succeeded"\} 0$/m);
    assert.match(text, new RegExp(`^mr_tasks_open ${JOBS - 1}$`, "m"));
  });

  it("says what is wrong with a question", async () => {
    for (const query of [
      "limit=0",
      "limit=1001",
      "limit=x",
      "state=done",
      "after=x",
      "name=a&name=b",
    ]) {
      const response = await fetch(`${cluster.url}/jobs?${query}`);
      assert.equal(response.status, 400, query);
      assert.match(await response.text(), new RegExp(`"field":"${query.split("=")[0]}"`));
    }
  });

  it("makes only so many lists of names at a time", async () => {
    const folder = join(cluster.dir, "store", "names");
    await mkdir(folder);
    for (let i = 0; i < 5_000; i += 1) await writeFile(join(folder, `part-${i}`), "");
    const list = async () => {
      const answer = await fetch(`${cluster.url}/storage/names`);
      const text = await answer.text();
      if (answer.status === 200) assert.equal(JSON.parse(text).objects.length, 5_000);
      return answer.status;
    };
    const answers = await Promise.all(Array.from({ length: 80 }, list));
    assert.deepEqual([...new Set(answers)].toSorted(), [200, 429]);
    assert.equal(await list(), 200);
  });

  it("lists tasks in pages, and those of a job that was cancelled as stopped", async () => {
    const data = `box/${LONG}/part`;
    const request = { mapper: "/bin/sleep 600", data, m_num: 7, r_num: 3, reducer: "identity" };
    const { id } = await cluster.client.json<JobJson>("/request", {
      method: "POST",
      headers: { prefer: "respond-async" },
      body: JSON.stringify({ ...request, priority: 100 }),
    });
    for await (const { state } of cluster.client.watch(id, AbortSignal.timeout(30_000)))
      if (state === "map") break;
    type Tasks = { tasks: { id: string; state: string }[]; next?: string };
    const first = await cluster.client.json<Tasks>(`/jobs/${id}/tasks?limit=4`);
    assert.equal(first.next, "m-00003");
    const rest = await cluster.client.json<Tasks>(`/jobs/${id}/tasks?after=${first.next}`);
    assert.equal(first.tasks.length + rest.tasks.length, 10);
    assert.equal(rest.tasks[0]?.id, "m-00004");
    await cluster.client.json(`/jobs/${id}`, { method: "DELETE" });
    const { tasks } = await cluster.client.json<Tasks>(`/jobs/${id}/tasks`);
    assert.deepEqual([...new Set(tasks.map(({ state }) => state))], ["stopped"]);
  });
});
