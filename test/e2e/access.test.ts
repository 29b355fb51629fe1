import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { Client, type JobJson } from "../../cmd/mr/client.ts";
import { parseTokens } from "../../internal/model/access.ts";
import { outputOf, putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { scratchFolder, until } from "../support/processes.ts";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "..", "..");
const MR = join(ROOT, "cmd", "mr", "main.ts");

/**
 * Who may what: alice her own data and folders, bob his and to read what alice shares, a reader only
 * results, the operator all.
 */
const TOKENS = {
  alice: ["alice-secret", "alice-*,dfs-scripts,dfs-dest"],
  bob: ["bob-secret", "bob-data,bob-results,r:alice-shared,w:drop-box/bob,dfs-scripts/bob"],
  reader: ["reader-secret", "r:dfs-dest"],
  operator: ["operator-secret", "*"],
} as const;
type Name = keyof typeof TOKENS;
const NAMES = Object.keys(TOKENS) as Name[];

const lineOf = (name: string, token: string, containers: string) =>
  `${name} sha256:${createHash("sha256").update(token).digest("hex")} ${containers}\n`;

describe("a proxy with tokens", () => {
  let folder: string;
  let file: string;
  let cluster: TestCluster;
  let job: JobJson;
  const clients = {} as Record<Name, Client>;

  const status = async (token: string | undefined, method: string, path: string, body?: string) => {
    const response = await fetch(`${cluster.url}${path}`, {
      method,
      headers: token === undefined ? {} : { authorization: token },
      ...(body !== undefined && { body }),
    });
    await response.body?.cancel();
    return response.status;
  };
  const as = (name: Name) => `Bearer ${TOKENS[name][0]}`;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mr-test-tokens-"));
    file = join(folder, "tokens");
    const lines = NAMES.map((name) => lineOf(name, TOKENS[name][0], TOKENS[name][1]));
    await writeFile(file, `# Clients of the tests.\n\n${lines.join("")}`);
    cluster = await useCluster({ workers: 1, env: { MR_TOKENS: file } });
    for (const name of NAMES) clients[name] = new Client(cluster.url, TOKENS[name][0]);
    await putText(clients.alice, "alice-data", "text", "b\na\n");
    await putText(clients.bob, "bob-data", "text", "2\n1\n");
    job = await runJob(clients.alice, { mapper: "cat", reducer: "cat", data: "alice-data" });
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it("runs a job of somebody who may use its containers", async () => {
    assert.equal(job.state, "succeeded");
    assert.equal(String(await outputOf(clients.alice, job.id)), "a\t\nb\t\n");
  });

  it("answers nobody without a known token, but the probes", async () => {
    const paths = [
      ["POST", "/request"],
      ["GET", "/jobs"],
      ["GET", "/tasks"],
      ["GET", "/workers"],
      ["GET", "/leader"],
      ["GET", "/metrics"],
      ["GET", "/storage"],
      ["GET", "/storage/alice-data"],
      ["GET", "/storage/alice-data/text"],
      ["PUT", "/storage/alice-data/text"],
      ["DELETE", "/storage/alice-data/text"],
      ["GET", `/jobs/${job.id}`],
      ["GET", `/jobs/${job.id}/output`],
      ["DELETE", `/jobs/${job.id}`],
      ["GET", "/nowhere"],
    ] as const;
    const wrong = [
      undefined,
      "",
      "Bearer",
      "Bearer wrong",
      `Basic ${TOKENS.alice[0]}`,
      TOKENS.alice[0],
      `${as("alice")}x`,
      `Bearer ${createHash("sha256").update(TOKENS.alice[0]).digest("hex")}`,
    ];
    for (const [method, path] of paths)
      for (const token of wrong)
        assert.equal(await status(token, method, path), 401, `${method} ${path} as ${token}`);
    const refused = await fetch(`${cluster.url}/jobs`);
    assert.match(refused.headers.get("www-authenticate") ?? "", /^Bearer /);
    assert.equal(refused.headers.get("content-type"), "application/problem+json");
    for (const path of ["/healthz", "/readyz"])
      assert.equal(await status(undefined, "GET", path), 200);
  });

  it("lets each use his own containers only", async () => {
    // Of each folder, who may read there and who may write; "": all of the container.
    const may: [place: string, read: readonly Name[], write: readonly Name[]][] = [
      ["alice-data/", ["alice", "operator"], ["alice", "operator"]],
      ["alice-other/", ["alice", "operator"], ["alice", "operator"]],
      ["alice-shared/", ["alice", "bob", "operator"], ["alice", "operator"]],
      ["bob-data/", ["bob", "operator"], ["bob", "operator"]],
      ["drop-box/bob/", ["operator"], ["bob", "operator"]],
      ["drop-box/bobby/", ["operator"], ["operator"]],
      ["dfs-dest/", ["alice", "reader", "operator"], ["alice", "operator"]],
      ["dfs-scripts/", ["alice", "operator"], ["alice", "operator"]],
      ["dfs-scripts/bob/", ["alice", "bob", "operator"], ["alice", "bob", "operator"]],
      ["dfs-intermediate/", ["operator"], ["operator"]],
      ["dfs-logs/", ["operator"], ["operator"]],
    ];
    for (const [place, readers, writers] of may)
      for (const name of NAMES) {
        const [container = "", prefix = ""] = place.split(/\/(.*)/s);
        const path = `/storage/${place}by-${name}`;
        const [reads, writes] = [readers.includes(name), writers.includes(name)];
        await putText(clients.operator, container, `${prefix}by-${name}`, "x");
        const list = `/storage/${container}?prefix=${encodeURIComponent(prefix)}`;
        const seen = {
          put: await status(as(name), "PUT", path, "x"),
          get: await status(as(name), "GET", path),
          list: await status(as(name), "GET", list),
          // What is not there is answered as what is.
          absent: await status(as(name), "GET", `${path}-not-there`),
          delete: await status(as(name), "DELETE", path),
        };
        const expected = {
          put: writes ? 201 : 403,
          get: reads ? 200 : 403,
          list: reads ? 200 : 403,
          absent: reads ? 404 : 403,
          delete: writes ? 204 : 403,
        };
        assert.deepEqual(seen, expected, `${name} ${path}`);
      }
    const listed = await clients.bob.json<{ containers: string[] }>("/storage");
    assert.deepEqual(listed.containers, ["alice-shared", "bob-data", "dfs-scripts", "drop-box"]);
  });

  it("takes a job only from who may use all it reads, writes and runs", async () => {
    // A bare word may be a script of dfs-scripts; these two cannot.
    const cat = { mapper: "/bin/cat", reducer: "identity" };
    const requests: [object, readonly Name[]][] = [
      [{ ...cat, data: "alice-data" }, ["alice", "operator"]],
      [{ ...cat, data: "bob-data", output: "bob-results/1" }, ["bob", "operator"]],
      [{ ...cat, data: "bob-data" }, ["operator"]],
      [{ ...cat, data: ["alice-data", "bob-data"] }, ["operator"]],
      [{ ...cat, data: "alice-data/t*" }, ["alice", "operator"]],
      [{ ...cat, data: "alice-data", output: "bob-results/2" }, ["operator"]],
      [{ ...cat, mapper: "cat", data: "bob-data", output: "bob-results/2" }, ["operator"]],
      [{ ...cat, data: "bob-data", output: "bob-results/3", files: ["x.txt"] }, ["operator"]],
      [
        { data: "bob-data", output: "bob-results/4", steps: [{ ...cat, mapper: "m.py" }] },
        ["operator"],
      ],
      [
        { ...cat, mapper: "bob/m.py", data: "bob-data", output: "bob-results/5" },
        ["bob", "operator"],
      ],
      [{ ...cat, mapper: "bobs.py", data: "bob-data", output: "bob-results/6" }, ["operator"]],
      [{ ...cat, data: "alice-shared", output: "bob-results/7" }, ["bob", "operator"]],
      [{ ...cat, data: "bob-data", output: "alice-shared/8" }, ["operator"]],
      [{ ...cat, data: "bob-data", output: "drop-box/bob/9" }, ["bob", "operator"]],
      [{ ...cat, data: "bob-data", output: "drop-box/bobby" }, ["operator"]],
      [{ ...cat, data: "drop-box/bob/", output: "bob-results/10" }, ["operator"]],
      [{ ...cat, data: "dfs-intermediate" }, ["operator"]],
    ];
    for (const [request, allowed] of requests)
      for (const name of NAMES) {
        const body = JSON.stringify({ ...request, name: "access" });
        const response = await fetch(`${cluster.url}/request`, {
          method: "POST",
          headers: { authorization: as(name), prefer: "respond-async" },
          body,
        });
        const text = await response.text();
        const isRefused = response.status === 403;
        assert.equal(isRefused, !allowed.includes(name), `${name}: ${body}: ${text}`);
      }
  });

  it("shows a job only to who could have asked for it", async () => {
    const paths = ["", "/events", "/tasks", "/output"].map((part) => `/jobs/${job.id}${part}`);
    for (const name of NAMES) {
      const ok = name === "alice" || name === "operator";
      for (const path of paths)
        assert.equal(await status(as(name), "GET", path), ok ? 200 : 404, `${name} ${path}`);
      const { jobs } = await clients[name].json<{ jobs: JobJson[] }>("/jobs");
      assert.equal(
        jobs.some(({ id }) => id === job.id),
        ok,
      );
    }
    const log = `/jobs/${job.id}/tasks/m-00000/attempts/1-1/log`;
    const replay = `/jobs/${job.id}/tasks/m-00000/attempts/1-1/assignment`;
    for (const path of [log, replay]) assert.equal(await status(as("bob"), "GET", path), 404);
    assert.equal(await status(as("bob"), "DELETE", `/jobs/${job.id}`), 404);
    const { state } = await clients.alice.json<JobJson>(`/jobs/${job.id}`);
    assert.equal(state, "succeeded");
    const told = async (id: string) => {
      const answer = await fetch(`${cluster.url}/jobs/${id}`, {
        headers: { authorization: as("bob") },
      });
      return (await answer.text()).replaceAll(id, "ID");
    };
    assert.equal(await told(job.id), await told("20260101-000000-abcdef"));
  });

  it("lets nobody end what only another began, though he may see it", async () => {
    await putText(clients.alice, "alice-shared", "text", "b\na\n");
    const { id } = await clients.alice.json<JobJson>("/request", {
      method: "POST",
      headers: { prefer: "respond-async" },
      body: JSON.stringify({ mapper: "/bin/sleep 60", data: "alice-shared", phase: "map" }),
    });
    assert.equal(await status(as("bob"), "GET", `/jobs/${id}`), 200);
    assert.equal(await status(as("bob"), "DELETE", `/jobs/${id}`), 403);
    assert.equal(await status(as("alice"), "DELETE", `/jobs/${id}`), 200);
  });

  it("shows nothing of another's jobs where it shows what there is", async () => {
    const request = { mapper: "/bin/sleep 60", data: "alice-data", r_num: 0 };
    const { id } = await clients.alice.json<JobJson>("/request", {
      method: "POST",
      headers: { prefer: "respond-async" },
      body: JSON.stringify(request),
    });
    type Workers = { workers: { host: string; attempts: string[] }[] };
    const busy = async (name: Name) => {
      const { workers } = await clients[name].json<Workers>("/workers");
      return workers.flatMap(({ attempts }) => attempts).some((each) => each.startsWith(id));
    };
    await until("alice's task", () => busy("alice"));
    const queue = async (name: Name) =>
      clients[name].json<{ tasks: number; jobs: number }>("/queue");
    assert.equal(await busy("operator"), true);
    assert.equal(await busy("bob"), false);
    const { workers } = await clients.bob.json<Workers>("/workers");
    assert.deepEqual(
      workers.map(({ host }) => host),
      [""],
    );
    assert.deepEqual((await clients.bob.json<{ jobs: JobJson[] }>("/tasks")).jobs, []);
    assert.equal((await queue("alice")).jobs, 1);
    assert.deepEqual(await queue("bob"), { tasks: 0, running: 0, jobs: 0 });
    for (const name of NAMES)
      assert.equal(await status(as(name), "GET", "/metrics"), name === "operator" ? 200 : 403);
    await clients.alice.json(`/jobs/${id}`, { method: "DELETE" });
  });

  it("reads of a result its own parts only, and only for who may read there", async () => {
    const request = { mapper: "/bin/cat", data: "bob-data/text", r_num: 0, m_num: 1 };
    for (const [conf, ending] of [
      [{}, ""],
      [{ "mapreduce.output.fileoutputformat.compress": "true" }, ".gz"],
    ] as const) {
      const folder = `bob/made${ending}`;
      const made = await runJob(clients.bob, { ...request, output: `drop-box/${folder}`, conf });
      assert.equal(made.state, "succeeded", JSON.stringify(made));
      const path = `/jobs/${made.id}/output`;
      for (const name of ["part-", "part-00000-x", "part-00001", "part-00000.bz2", "part-z.zst"])
        await putText(clients.operator, "drop-box", `${folder}/${name}`, "another's\n");
      assert.equal(await status(as("bob"), "GET", path), 403);
      assert.equal(String(await outputOf(clients.operator, made.id)), "2\n1\n");
      const part = `/storage/drop-box/${folder}/part-00000${ending}`;
      assert.equal(await status(as("operator"), "DELETE", part), 204);
      assert.equal(await status(as("operator"), "GET", path), 404);
    }
  });

  it("does not let one go on from a map phase that he may not see", async () => {
    const phase = { mapper: "/bin/cat", data: "alice-data", r_num: 1 };
    const made = await runJob(clients.alice, { ...phase, phase: "map" });
    assert.equal(made.state, "succeeded");
    const reduce = {
      ...phase,
      phase: "reduce",
      reducer: "identity",
      data: "bob-data",
      from: made.id,
    };
    const body = JSON.stringify({ ...reduce, output: "bob-results/from" });
    assert.equal(await status(as("bob"), "POST", "/request", body), 404);
  });

  it("keeps one's idempotency keys from meeting another's jobs", async () => {
    const ids = new Set<string>();
    for (const [name, data, output] of [
      ["alice", "alice-data", "alice-results/key"],
      ["bob", "bob-data", "bob-results/key"],
      ["alice", "alice-data", "alice-results/key"],
    ] as const) {
      const response = await fetch(`${cluster.url}/request`, {
        method: "POST",
        headers: {
          authorization: as(name),
          prefer: "respond-async",
          "idempotency-key": "the same",
        },
        body: JSON.stringify({ mapper: "/bin/cat", reducer: "identity", data, output }),
      });
      assert.equal(response.status, 202);
      ids.add(((await response.json()) as JobJson).id);
    }
    assert.equal(ids.size, 2);
  });

  it("reads its tokens again when they change, and keeps them when the change is a slip", async () => {
    const kept = await readFile(file, "utf8");
    const { stdout } = await run(process.execPath, [...[MR, "token", "carol", "--file", file]]);
    assert.match(await readFile(file, "utf8"), / carol-\*,dfs-scripts\/carol,dfs-dest\/carol\n$/);
    const token = stdout.trim();
    assert.doesNotMatch(await readFile(file, "utf8"), new RegExp(token));
    const carol = `Bearer ${token}`;
    await until("carol", async () => (await status(carol, "GET", "/jobs")) === 200);
    assert.equal(await status(carol, "GET", "/storage/alice-data"), 403);
    await writeFile(file, "carol sha256:short carol-*\n");
    assert.equal(await status(carol, "GET", "/jobs"), 200);
    await writeFile(file, kept);
    await until("carol gone", async () => (await status(carol, "GET", "/jobs")) === 401);
    assert.equal(await status(as("alice"), "GET", "/jobs"), 200);
  });

  it("is used by the command line and from Python with MR_TOKEN", async () => {
    const env = { ...process.env, MR_SERVER: cluster.url };
    const { stdout } = await run(process.execPath, [MR, "cat", job.id], {
      env: { ...env, MR_TOKEN: TOKENS.alice[0] },
    });
    assert.equal(stdout, "a\t\nb\t\n");
    const without = await run(process.execPath, [MR, "jobs"], {
      env: { ...env, MR_TOKEN: "" },
    }).catch((error) => error);
    assert.equal(without.code, 1);
    assert.match(without.stderr, /asks for a token.*MR_TOKEN/s);
    const python = ["cmd/user_interface.py", "run", "--mapper", "cat", "--data", "alice-data"];
    await run("/usr/bin/python3", [join(ROOT, python[0] ?? ""), ...python.slice(1)], {
      env: { ...env, MR_TOKEN: TOKENS.alice[0] },
    });
  });
});

describe("a token", () => {
  it("is given no places by its name that are another's, and no others than it says", async () => {
    await using folder = await scratchFolder("tokens");
    const file = join(folder.path, "tokens");
    const token = (...args: string[]) =>
      run(process.execPath, [MR, "token", ...args, "--file", file]).then(
        () => ({ code: 0, stderr: "" }),
        ({ code, stderr }: { code: number; stderr: string }) => ({ code, stderr }),
      );
    assert.equal((await token("team-a")).code, 0);
    for (const name of ["team", "team-a-b"]) {
      const { code, stderr } = await token(name);
      assert.equal(code, 2, stderr);
      assert.match(stderr, /team-a-\* .*containers in common|containers in common.*--places/);
    }
    assert.equal((await token("team", "--places", "team-data")).code, 0);
    assert.equal((await token("odd", "--places", "w:box/team#1")).code, 0);
    assert.equal((await token("blank", "--places", "w:box/a b")).code, 2);
    const odd = parseTokens(await readFile(file, "utf8")).find(({ name }) => name === "odd");
    assert.deepEqual(odd?.places, ["w:box/team#1"]);
  });
});

describe("a file of tokens that cannot be read", () => {
  it("stops the proxy with the line, and with nothing of what it says", async () => {
    const folder = await mkdtemp(join(tmpdir(), "mr-test-tokens-"));
    try {
      const file = join(folder, "tokens");
      const cases: [text: string, message: RegExp][] = [
        [`ok sha256:${"0".repeat(64)} a-b\nsecret\n`, /line 2: NAME sha256:HEX CONTAINER/],
        ["a b/c sha256:0 x\n", /line 1/],
        [`alice sha256:${"0".repeat(63)} data\n`, /line 1: sha256: and 64/],
        [`alice sha256:${"0".repeat(64)} Data\n`, /line 1: a container name has only/],
        [`alice sha256:${"0".repeat(64)} da*ta\n`, /line 1/],
        [`${`alice sha256:${"0".repeat(64)} data\n`.repeat(2)}`, /line 2: a line before/],
      ];
      for (const [text, message] of cases) {
        await writeFile(file, text);
        const main = join(ROOT, "cmd", "proxy", "main.ts");
        const env = { ...process.env, MR_TOKENS: file, MR_STORE_DIR: folder, HTTP_PORT: "0" };
        const ended = await run(process.execPath, [main], {
          env: { ...env, MR_SQLITE_FILE: join(folder, "db") },
          timeout: 20_000,
        }).catch((error) => error);
        assert.equal(ended.code, 1, text);
        assert.match(ended.stderr, message);
        assert.match(ended.stderr, /MR_TOKENS/);
        assert.doesNotMatch(ended.stderr, /secret/);
      }
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
