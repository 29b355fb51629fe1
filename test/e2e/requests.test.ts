import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import type { JobJson } from "../../cmd/mr/client.ts";
import { outputOf, putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";

const run = promisify(execFile);
const GOOD = { mapper: "cat.py", reducer: "cat.py", data: "text", m_num: 1, r_num: 1 };
const CAT = "import sys\nfor line in sys.stdin: sys.stdout.write(line)\n";

type Problem = { status: number; detail: string; errors?: { field: string; message: string }[] };

/** A body (an object is sent as JSON), the status, and fields that must be named. */
const MALFORMED: [name: string, body: unknown, status: number, fields?: string[]][] = [
  ["empty body", "", 400],
  ["not JSON", "{mapper: cat.py}", 400],
  ["cut off JSON", '{"mapper": "cat.py"', 400],
  ["invalid UTF-8", Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), 400],
  ["an array", [], 400, [""]],
  ["a string", '"text"', 400, [""]],
  ["null", "null", 400, [""]],
  ["an empty object", {}, 400, ["mapper", "data"]],
  ["10 MB", "x".repeat(10_000_000), 413],
  ["10 MB of JSON", JSON.stringify({ ...GOOD, name: "n".repeat(10_000_000) }), 413],
  ["unknown fields", { ...GOOD, mappers: 3, colour: "red" }, 400, ["mappers", "colour"]],
  ["m_num as text", { ...GOOD, m_num: "20" }, 400, ["m_num"]],
  ["m_num negative", { ...GOOD, m_num: -1 }, 400, ["m_num"]],
  ["m_num huge", { ...GOOD, m_num: 10_001 }, 400, ["m_num"]],
  ["m_num a fraction", { ...GOOD, m_num: 1.5 }, 400, ["m_num"]],
  ["m_num beyond all numbers", '{"mapper":"cat.py","data":"text","m_num":1e400}', 400, ["m_num"]],
  ["r_num negative", { ...GOOD, r_num: -5 }, 400, ["r_num"]],
  ["r_num huge", { ...GOOD, r_num: 1e9 }, 400, ["r_num"]],
  ["m_num x r_num", { ...GOOD, m_num: 10_000, r_num: 2_000 }, 400, ["m_num"]],
  ["no reducer", { ...GOOD, reducer: undefined }, 400, ["reducer"]],
  ["data as a URL", { ...GOOD, data: "https://example.org/text" }, 400, ["data"]],
  ["data that climbs", { ...GOOD, data: "text/../../etc" }, 400, ["data"]],
  ["data as a path", { ...GOOD, data: "/etc" }, 400, ["data"]],
  ["data as a number", { ...GOOD, data: 7 }, 400, ["data"]],
  ["mapper that climbs", { ...GOOD, mapper: "../cat.py" }, 400, ["mapper"]],
  ["mapper with a backslash", { ...GOOD, mapper: "a\\b.py" }, 400, ["mapper"]],
  ["mapper with a newline", { ...GOOD, mapper: "cat.py\nrm" }, 400, ["mapper"]],
  ["missing script", { ...GOOD, mapper: "nowhere.py" }, 400, ["mapper"]],
  [
    "two missing scripts and a container",
    { ...GOOD, mapper: "a.py", reducer: "b.py", data: "gone" },
    400,
    ["mapper", "reducer", "data"],
  ],
  ["a prefix that matches nothing", { ...GOOD, data: "text/none-such" }, 400, ["data"]],
  ["a phase of its own", { ...GOOD, phase: "sort" }, 400, ["phase"]],
  ["a reduce phase without a map phase", { ...GOOD, phase: "reduce" }, 400, ["phase"]],
  [
    "env with a bad name and a NUL",
    { ...GOOD, env: { "A B": "x", C: "\0" } },
    400,
    ["env.A B", "env.C"],
  ],
  [
    "an unknown option",
    { ...GOOD, conf: { "mapreduce.no.such": 1 } },
    400,
    ["conf.mapreduce.no.such"],
  ],
  ["an unknown partitioner", { ...GOOD, partitioner: "random" }, 400, ["partitioner"]],
  ["count as a combiner", { ...GOOD, combiner: "count" }, 400, ["combiner"]],
  ["a combiner that is nowhere", { ...GOOD, combiner: "no.py" }, 400, ["combiner"]],
  ["a reducer as a mapper", { ...GOOD, mapper: "count" }, 400, ["mapper"]],
  ["a built-in with arguments", { ...GOOD, reducer: "sum -x" }, 400, ["reducer"]],
  [
    "a name that every object has",
    { ...GOOD, conf: { constructor: 1 } },
    400,
    ["conf.constructor"],
  ],
  ["half a character", { ...GOOD, name: "\ud800", env: { A: "\udc00" } }, 400, ["name", "env.A"]],
  [
    "options without end",
    { ...GOOD, conf: { "mapreduce.partition.keycomparator.options": "-k1 ".repeat(5_000) } },
    400,
    ["conf.mapreduce.partition.keycomparator.options"],
  ],
  [
    "a separator of 30,000 characters",
    { ...GOOD, conf: { "stream.map.output.field.separator": "x".repeat(30_000) } },
    400,
    ["conf.stream.map.output.field.separator"],
  ],
  ["options of 200 KB", { ...GOOD, conf: { x: "y".repeat(200_000) } }, 400, ["conf"]],
  [
    "steps that share too much",
    {
      data: "text",
      env: { A: "x".repeat(30_000) },
      steps: Array.from({ length: 50 }, () => ({ mapper: "cat.py" })),
    },
    400,
    [""],
  ],
  ["an unknown format", { ...GOOD, output_format: "xml" }, 400, ["output_format"]],
  ["a network that is neither", { ...GOOD, network: "yes" }, 400, ["network"]],
  ["a network that the operator does not permit", { ...GOOD, network: true }, 400, ["network"]],
  ["a negative timeout", { ...GOOD, task_timeout: -1 }, 400, ["task_timeout"]],
  ["no data at all", { ...GOOD, data: [] }, 400, ["data"]],
  ["one bad input of two", { ...GOOD, data: ["text", "text/../x"] }, 400, ["data.1"]],
  ["a pattern that does not end", { ...GOOD, data: "text/{a,b" }, 400, ["data"]],
  ["a set that does not end", { ...GOOD, data: ["text/[a"] }, 400, ["data.0"]],
  ["a pattern for a container", { ...GOOD, data: "te*t/a" }, 400, ["data"]],
  ["a pattern that matches nothing", { ...GOOD, data: ["text", "text/b*"] }, 400, ["data.1"]],
  ["too many alternatives", { ...GOOD, data: `text/${"{a,b}".repeat(20)}` }, 400, ["data"]],
  ["a link with a slash", { ...GOOD, files: ["cat.py#a/b"] }, 400, ["files.0"]],
  ["a link that goes up", { ...GOOD, files: ["cat.py#.."] }, 400, ["files.0"]],
  ["an empty link", { ...GOOD, files: ["cat.py#"] }, 400, ["files.0"]],
  ["two files of one name", { ...GOOD, files: ["a/x", "b/x"] }, 400, ["files"]],
  [
    "an empty separator",
    { ...GOOD, conf: { "stream.map.output.field.separator": "" } },
    400,
    ["conf.stream.map.output.field.separator"],
  ],
  [
    "key fields that make no sense",
    { ...GOOD, conf: { "mapreduce.partition.keycomparator.options": "-k0,1" } },
    400,
    ["conf.mapreduce.partition.keycomparator.options"],
  ],
  [
    "an option that is a field here",
    { ...GOOD, conf: { "mapreduce.job.reduces": 3 } },
    400,
    ["conf.mapreduce.job.reduces"],
  ],
  [
    "steps beside a mapper",
    { ...GOOD, steps: [{ mapper: "cat.py" }] },
    400,
    ["mapper", "reducer", "m_num", "r_num"],
  ],
  ["no steps", { data: "text", steps: [] }, 400, ["steps"]],
  ["a step that is none", { data: "text", steps: [7] }, 400, ["steps.0"]],
  [
    "faults in several steps",
    { data: "text", steps: [{ mapper: "no.py" }, { mapper: "cat.py", reducer: "gone.py" }] },
    400,
    ["steps.0.mapper", "steps.1.reducer"],
  ],
  [
    "an output under which no part could be named",
    { ...GOOD, output: `results/${"a/".repeat(509)}` },
    400,
    ["output"],
  ],
  ["an output that is in use", { ...GOOD, output: "text" }, 400, ["output"]],
  [
    "everything wrong at once",
    { mapper: 1, reducer: [], data: {}, m_num: "x", r_num: null, priority: 1e6, env: { "": "x" } },
    400,
    ["mapper", "reducer", "data", "m_num", "r_num", "priority", "env."],
  ],
];

describe("requests", () => {
  let cluster: TestCluster;
  before(async () => {
    const env = { MR_NETWORK_JOBS: "refuse" };
    cluster = await useCluster({ workers: 1, slots: 2, env });
    await putText(cluster.client, "dfs-scripts", "cat.py", CAT);
    await putText(cluster.client, "text", "a", "b\ta\na\tb\n");
  });
  after(() => cluster[Symbol.asyncDispose]());

  const post = (body: unknown, headers: Record<string, string> = {}) =>
    fetch(`${cluster.url}/request`, {
      method: "POST",
      headers,
      body: (typeof body === "string" || Buffer.isBuffer(body)
        ? body
        : JSON.stringify(body)) as RequestInit["body"],
    });

  it(`refuses ${MALFORMED.length} malformed requests with the reason, and goes on`, async () => {
    assert.ok(MALFORMED.length >= 30);
    const pids = (await cluster.client.json<{ workers: { pid: number }[] }>("/workers")).workers;
    for (const [name, body, status, fields] of MALFORMED) {
      const response = await post(body);
      const problem = (await response.json()) as Problem;
      assert.equal(response.status, status, `${name}: ${JSON.stringify(problem)}`);
      assert.match(response.headers.get("content-type") ?? "", /^application\/problem\+json/, name);
      assert.ok(problem.detail.length > 5, name);
      assert.equal(problem.status, status);
      if (name === "data as a number")
        assert.match(problem.errors?.[0]?.message ?? "", /expected string/);
      const named = [...new Set((problem.errors ?? []).map(({ field }) => field))].toSorted();
      assert.deepEqual(named, (fields ?? []).toSorted(), `${name}: ${JSON.stringify(problem)}`);
    }
    const { jobs } = await cluster.client.json<{ jobs: object[] }>("/jobs");
    assert.deepEqual(jobs, [], "a malformed request was accepted");
    assert.deepEqual((await cluster.client.json<{ workers: object[] }>("/workers")).workers, pids);
    const job = await runJob(cluster.client, GOOD);
    assert.equal(job.state, "succeeded");
    assert.equal((await outputOf(cluster.client, job.id)).toString(), "a\tb\nb\ta\n");
  });

  it("shows counters and status while a task runs", async () => {
    const script = `import sys, time
for i in range(1000):
    print("reporter:counter:live,beats,1", file=sys.stderr)
    print("reporter:status:at", i, file=sys.stderr, flush=True)
    time.sleep(0.1)
`;
    await putText(cluster.client, "dfs-scripts", "beats.py", script);
    const request = { mapper: "beats.py", data: "text", m_num: 1, r_num: 0 };
    let seen: JobJson | undefined;
    for await (const job of cluster.client.run(request, AbortSignal.timeout(60_000))) {
      if ((job.counters["live,beats"] ?? 0) < 2 || seen !== undefined) continue;
      seen = job;
      const { tasks } = await cluster.client.json<{ tasks: { attempts: { status: string }[] }[] }>(
        `/jobs/${job.id}/tasks`,
      );
      assert.match(tasks[0]?.attempts[0]?.status ?? "", /^at \d+/);
      await cluster.client.json(`/jobs/${job.id}`, { method: "DELETE" });
    }
    assert.equal(seen?.state, "map");
  });

  it("answers bad paths and methods with problems", async () => {
    const cases: [method: string, path: string, status: number][] = [
      ["GET", "/nowhere", 404],
      ["GET", "/jobs/..%2f..%2fetc", 404],
      ["GET", "/jobs/20260101-000000-aaaaaa", 404],
      ["DELETE", "/jobs/20260101-000000-aaaaaa", 404],
      ["GET", "/jobs/20260101-000000-aaaaaa/output", 404],
      ["GET", "/jobs/x/tasks/m-00000/attempts/1-1/log", 404],
      ["GET", "/storage/UPPER", 400],
      ["GET", "/storage/no-such-container", 404],
      ["GET", "/storage/text/none", 404],
      ["PUT", "/storage/text/%2e%2e%2fup", 400],
      ["PUT", "/storage/text/a%5cb", 400],
      ["PUT", "/storage/text/a%00b", 400],
      ["GET", "/storage/text/%ff", 404],
      ["PUT", "/request", 405],
    ];
    for (const [method, path, status] of cases) {
      const response = await rawRequest(cluster.url, method, path);
      assert.equal(response.status, status, `${method} ${path}: ${response.body}`);
      assert.match(response.body, /application\/problem\+json/, path);
    }
  });

  it("does not keep an upload that broke off", async () => {
    const { hostname, port } = new URL(cluster.url);
    await new Promise<void>((resolve, reject) => {
      const socket = connect(Number(port), hostname, () => {
        socket.write(
          "PUT /storage/text/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf",
        );
        setImmediate(() => socket.destroy());
      });
      socket.on("close", () => resolve());
      socket.on("error", reject);
    });
    await putText(cluster.client, "text", "zz-later", "x");
    const names = (await cluster.client.list("text", "")).map(({ name }) => name);
    assert.deepEqual(names, ["a", "zz-later"]);
    await fetch(`${cluster.url}/storage/text/zz-later`, { method: "DELETE" });
  });

  it("answers at once with respond-async, and once only for one key", async () => {
    const headers = { prefer: "respond-async", "idempotency-key": "the-key" };
    const first = await post(GOOD, headers);
    assert.equal(first.status, 202);
    const { id } = (await first.json()) as { id: string };
    assert.equal(first.headers.get("location"), `/jobs/${id}`);
    const again = (await (await post(GOOD, headers)).json()) as { id: string };
    assert.equal(again.id, id);
    const other = await post({ ...GOOD, m_num: 2 }, headers);
    assert.equal(other.status, 409);
    await until(
      "its end",
      async () =>
        (await cluster.client.json<{ state: string }>(`/jobs/${id}`)).state === "succeeded",
    );
    const repeated = (await (await post(GOOD, headers)).json()) as { id: string; state: string };
    assert.deepEqual([repeated.id, repeated.state], [id, "succeeded"]);
  });

  it("streams events, tells of tasks, workers and the leader, and measures itself", async () => {
    const job = await runJob(cluster.client, { ...GOOD, name: "named" });
    const events = await (await fetch(`${cluster.url}/jobs/${job.id}/events`)).text();
    const last = events.trimEnd().split("\n\n").at(-1) ?? "";
    assert.equal((JSON.parse(last.slice(6)) as { state: string }).state, "succeeded");
    const { tasks } = await cluster.client.json<{ tasks: { id: string; state: string }[] }>(
      `/jobs/${job.id}/tasks`,
    );
    assert.deepEqual(
      tasks.map(({ id, state }) => `${id} ${state}`),
      ["m-00000 done", "r-00000 done"],
    );
    const leader = await cluster.client.json<{ pid: number; address: string }>("/leader");
    assert.ok(leader.pid > 0 && leader.address.startsWith("127.0.0.1:"));
    const metrics = await (await fetch(`${cluster.url}/metrics`)).text();
    assert.match(metrics, /^mr_jobs\{state="succeeded"\} [1-9]/m);
    assert.match(metrics, /^mr_workers\{state="connected"\} 1$/m);
    assert.equal((await fetch(`${cluster.url}/healthz`)).status, 200);
  });

  it("cancels a running job, kills its scripts and shows none of its output", async () => {
    const { client } = cluster;
    await putText(
      client,
      "dfs-scripts",
      "sleep.py",
      "import time\nprint('x\\t1', flush=True)\ntime.sleep(600)\n",
    );
    const response = await post(
      { ...GOOD, mapper: "sleep.py", m_num: 2 },
      { prefer: "respond-async" },
    );
    const { id } = (await response.json()) as { id: string };
    await until(
      "running scripts",
      async () =>
        (await client.json<{ map: { running: number } }>(`/jobs/${id}`)).map.running === 2,
    );
    const cancelled = await client.json<{ state: string }>(`/jobs/${id}`, { method: "DELETE" });
    assert.equal(cancelled.state, "cancelled");
    await until("free slots", async () => {
      const { workers } = await client.json<{ workers: { attempts: string[]; free: number }[] }>(
        "/workers",
      );
      return workers.every(({ attempts, free }) => attempts.length === 0 && free === 2);
    });
    for (const container of ["dfs-dest", "dfs-intermediate"])
      assert.deepEqual(await client.list(container, `${id}/`), []);
    assert.equal((await fetch(`${cluster.url}/jobs/${id}/output`)).status, 409);
  });

  it("fails a job whose script fails, with the first true cause and its last words", async () => {
    const { client } = cluster;
    await putText(
      client,
      "dfs-scripts",
      "bad.py",
      "import sys\nprint('reporter:counter:g,n,1', file=sys.stderr)\nraise ValueError('no such thing')\n",
    );
    const job = await runJob(client, { ...GOOD, mapper: "bad.py" });
    assert.equal(job.state, "failed");
    assert.equal(job.error?.class, "user");
    assert.match(job.error?.message ?? "", /exited with 1.*tried 4 times/);
    assert.match(job.error?.log_tail ?? "", /ValueError: no such thing/);
    assert.doesNotMatch(job.error?.log_tail ?? "", /reporter:/);
    const path = `/jobs/${job.id}/tasks/${job.error?.task}/attempts/${job.error?.attempt}/log`;
    assert.match(await (await fetch(`${cluster.url}${path}`)).text(), /ValueError: no such thing/);
    assert.deepEqual(await client.list("dfs-dest", `${job.id}/`), []);
  });

  it("fails a job whose script is replaced while it runs, and never mixes versions", async () => {
    const { client } = cluster;
    await putText(client, "dfs-scripts", "block.py", "import time\ntime.sleep(600)\n");
    await putText(client, "dfs-scripts", "mine.py", CAT);
    const submit = async (request: object) => {
      const response = await post(request, { prefer: "respond-async" });
      return ((await response.json()) as { id: string }).id;
    };
    const job = (id: string) =>
      client.json<{ state: string; map: { running: number }; error?: { message: string } }>(
        `/jobs/${id}`,
      );
    const blocker = await submit({ mapper: "block.py", data: "text", m_num: 2, r_num: 0 });
    await until("no free slot", async () => (await job(blocker)).map.running === 2);
    const waiting = await submit({ ...GOOD, mapper: "mine.py" });
    await putText(client, "dfs-scripts", "mine.py", `# another\n${CAT}`);
    await client.json(`/jobs/${blocker}`, { method: "DELETE" });
    await until("its end", async () => (await job(waiting)).state === "failed");
    const { error } = await job(waiting);
    assert.match(error?.message ?? "", /mine.py was changed or deleted while the job ran/);
    const again = await runJob(client, { ...GOOD, mapper: "mine.py" });
    assert.equal(again.state, "succeeded", JSON.stringify(again.error));
  });

  it("counts what scripts report", async () => {
    const { client } = cluster;
    const script =
      "import sys\nfor line in sys.stdin:\n    sys.stderr.write('reporter:counter:words,seen,2\\n')\n    print(line, end='')\n";
    await putText(client, "dfs-scripts", "count.py", script);
    const job = await runJob(client, { ...GOOD, mapper: "count.py" });
    assert.deepEqual(job.counters, { "words,seen": 4 });
  });

  it("gives scripts Hadoop's environment and nothing of the worker's", async () => {
    const { client } = cluster;
    const script =
      "import os, sys\nfor name, value in sorted(os.environ.items()): print(name, value, sep='\\t')\n";
    await putText(client, "dfs-scripts", "environment.py", script);
    await putText(client, "dfs-scripts", "extra/side.txt", "beside\n");
    const request = {
      mapper: "environment.py one 'two three'",
      data: "text",
      m_num: 1,
      r_num: 0,
      name: "a name",
      env: { MINE: "yes" },
      files: ["extra/side.txt"],
    };
    const job = await runJob(client, request);
    assert.equal(job.state, "succeeded", JSON.stringify(job.error));
    const text = (await outputOf(client, job.id)).toString();
    const env = Object.fromEntries(
      text
        .trimEnd()
        .split("\n")
        .map((line) => line.split("\t")),
    );
    assert.equal(env.MINE, "yes");
    assert.equal(env.mapreduce_job_id, job.id);
    assert.equal(env.mapred_job_id, job.id);
    assert.equal(env.mapreduce_job_name, "a name");
    assert.equal(env.mapreduce_map_input_file, "text/a");
    assert.equal(env.mapreduce_task_ismap, "true");
    assert.equal(env.LANG, "C.UTF-8");
    for (const name of Object.keys(env))
      assert.doesNotMatch(name, /^(MR_(?!RUN$)|AZURE|BLOB|ETCD|RPC|NODE|PYTHON|npm)/, name);
  });

  it("speaks JSON over HTTP/1.1 and gRPC with reflection on the master's one port", async () => {
    const { address } = await cluster.client.json<{ address: string }>("/leader");
    const buf = join(import.meta.dirname, "..", "..", "node_modules", ".bin", "buf");
    const url = `http://${address}/mapreduce.v1.JobService/List`;
    for (const protocol of ["grpc", "connect", "grpcweb"]) {
      const { stdout } = await run(
        buf,
        ["curl", "--http2-prior-knowledge", "--protocol", protocol, url],
        {
          env: { ...process.env, PATH: `${join(buf, "..")}:${process.env.PATH}` },
        },
      );
      assert.ok((JSON.parse(stdout) as { jobs: object[] }).jobs.length > 0, protocol);
    }
    const json = ["-sS", "-H", "content-type: application/json", "-d", "{}", url];
    const { stdout } = await run("curl", json);
    assert.ok((JSON.parse(stdout) as { jobs: object[] }).jobs.length > 0);
    const bad = [
      "-sS",
      "-H",
      "content-type: application/json",
      "-d",
      '{"spec":{"mapper":"../x"}}',
      url.replace("List", "Submit"),
    ];
    const refused = JSON.parse((await run("curl", bad)).stdout) as {
      code: string;
      details: object[];
    };
    assert.equal(refused.code, "invalid_argument");
    assert.equal(refused.details.length, 1);
  });
});

/** Without the client's own tidying of paths. */
function rawRequest(url: string, method: string, path: string) {
  const { hostname, port } = new URL(url);
  return new Promise<{ status: number; body: string }>((resolve, reject) => {
    let text = "";
    const socket = connect(Number(port), hostname, () => {
      socket.write(
        `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
      );
    });
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve({ status: Number(text.split(" ")[1]), body: text }));
  });
}
