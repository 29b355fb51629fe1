import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { outputOf, putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { seeded } from "../support/corpus.ts";
import { normalized, oracle, sortedLines } from "../support/oracle.ts";
import { useAzurite, useEtcd } from "../support/servers.ts";

/** Counts each whole line: every byte of the input matters to the result. */
const LINE_MAPPER = `import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line[:-1].replace(b"\\t", b" ") + b"\\t1\\n")
`;
const SUM_REDUCER = `import sys
from itertools import groupby
lines = (line[:-1].rpartition(b"\\t") for line in sys.stdin.buffer)
for key, group in groupby(lines, key=lambda line: line[0]):
    total = sum(int(value) for _, _, value in group)
    sys.stdout.buffer.write(key + b"\\t" + str(total).encode() + b"\\n")
`;
/** The same key for every line. */
const ONE_KEY_MAPPER = `import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(b"all\\t1\\n")
`;

interface Case {
  name: string;
  files: Record<string, string | Uint8Array>;
  mapper?: string;
  m?: number;
  r?: number;
}

const random = seeded(7);
const manyLines = (count: number) =>
  Array.from({ length: count }, () => `line ${Math.floor(random() * 500)}\n`).join("");
const invalidUtf8 = Buffer.from(Array.from({ length: 20_000 }, () => Math.floor(random() * 256)));

const CASES: Case[] = [
  {
    name: "no newline at the ends of files",
    files: { a: "one\ntwo", b: "three", c: "four\n" },
    m: 2,
  },
  { name: "CRLF", files: { a: "one\r\ntwo\r\nthree\r\n".repeat(500) }, m: 7 },
  { name: "lone CR, LF and CRLF mixed", files: { a: "a\rb\r\nc\n\rd\r\r\n".repeat(300) }, m: 11 },
  { name: "empty files among others", files: { a: "", b: "x\n", c: "", d: "" }, m: 3 },
  { name: "an empty container", files: {}, m: 1 },
  { name: "only empty lines", files: { a: "\n\n\n", b: "\n" }, m: 2 },
  { name: "invalid UTF-8 and NUL bytes", files: { a: invalidUtf8 }, m: 5, r: 3 },
  { name: "a key that is 1 MB long", files: { a: `${"k".repeat(1_000_000)}\nshort\n` }, m: 1 },
  {
    name: "all records one key",
    files: { a: manyLines(50_000) },
    mapper: ONE_KEY_MAPPER,
    m: 4,
    r: 3,
  },
  { name: "one reducer", files: { a: manyLines(5_000) }, m: 3, r: 1 },
  { name: "200 reducers", files: { a: manyLines(5_000) }, m: 2, r: 200 },
  { name: "more maps than lines", files: { a: "a\nb\nc\n" }, m: 40, r: 2 },
  { name: "one 50 MB line", files: { a: `${"x".repeat(50_000_000)}\ntail\n` }, m: 3, r: 2 },
  {
    name: "keys that sort before TAB, and a prefix of another",
    files: { a: "a\u0001b\na\na\u0001\na b\nab\n\u0000\n".repeat(20) },
    m: 3,
    r: 1,
  },
];

interface Backends extends AsyncDisposable {
  cluster: TestCluster;
}

async function embedded(): Promise<Backends> {
  const cluster = await useCluster();
  return { cluster, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() };
}

async function etcdAndAzurite(): Promise<Backends> {
  await using stack = new AsyncDisposableStack();
  const etcd = stack.use(await useEtcd());
  const azurite = stack.use(await useAzurite());
  const options = { etcd: etcd.address, blob: azurite.connectionString };
  const cluster = stack.use(await useCluster(options));
  const all = stack.move();
  return { cluster, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

for (const [where, open] of [
  ["SQLite and a folder", embedded],
  ["etcd and Azurite", etcdAndAzurite],
] as const)
  describe(`inputs against the sequential run, on ${where}`, () => {
    let backends: Backends;
    let cluster: TestCluster;
    before(async () => {
      backends = await open();
      cluster = backends.cluster;
      const { client } = cluster;
      await putText(client, "dfs-scripts", "line.py", LINE_MAPPER);
      await putText(client, "dfs-scripts", "one_key.py", ONE_KEY_MAPPER);
      await putText(client, "dfs-scripts", "sum.py", SUM_REDUCER);
    });
    after(() => backends[Symbol.asyncDispose]());

    for (const [index, { name, files, mapper, m, r }] of CASES.entries())
      it(name, async () => {
        const { client } = cluster;
        const container = `input-${index}`;
        await client.fetch(`/storage/${container}`, { method: "PUT" });
        for (const [file, body] of Object.entries(files))
          await putText(client, container, file, body);
        const job = await runJob(client, {
          mapper: mapper === undefined ? "line.py" : "one_key.py",
          reducer: "sum.py",
          data: container,
          m_num: m ?? 2,
          r_num: r ?? 2,
        });
        assert.equal(job.state, "succeeded", JSON.stringify(job.error));
        assert.equal(job.reduce.done, r ?? 2);
        const parts = (await client.list("dfs-dest", `${job.id}/`)).map((part) => part.name);
        assert.equal(parts.length, (r ?? 2) + 1);
        assert.ok(parts.includes(`${job.id}/_SUCCESS`));
        const input = Buffer.concat(
          Object.values(files).map((body) => normalized(Buffer.from(body as string))),
        );
        const expected = await oracle(input, mapper ?? LINE_MAPPER, SUM_REDUCER);
        const actual = sortedLines(await outputOf(client, job.id));
        assert.ok(actual.equals(expected), `${actual.length} bytes, expected ${expected.length}`);
      });

    it("packs 5,000 files of 1 KB into 20 tasks", async () => {
      const { client } = cluster;
      const body = `${"word ".repeat(199)}end\n\n`;
      let next = 0;
      const lane = async () => {
        while (next < 5_000) await putText(client, "small-files", `f/${next++}`, body);
      };
      await Promise.all(Array.from({ length: 16 }, lane));
      const job = await runJob(client, {
        mapper: "line.py",
        reducer: "sum.py",
        data: "small-files/f/",
        m_num: 20,
        r_num: 1,
      });
      assert.equal(job.state, "succeeded", JSON.stringify(job.error));
      assert.deepEqual([job.map.done, job.map.total], [20, 20]);
      const lines = (await outputOf(client, job.id)).toString().split("\n");
      assert.deepEqual(lines, ["\t5000", `${body.trimEnd()}\t5000`, ""]);
    });

    it("keeps mapper output as it is in a map-only job", async () => {
      const { client } = cluster;
      await putText(client, "map-only", "a", "x\ny");
      await putText(client, "map-only", "b", "z\r\n");
      const job = await runJob(client, { mapper: "line.py", data: "map-only", m_num: 2, r_num: 0 });
      assert.equal(job.state, "succeeded", JSON.stringify(job.error));
      const lines = (await outputOf(client, job.id)).toString().split("\n").toSorted();
      assert.deepEqual(lines, ["", "x\t1", "y\t1", "z\t1"]);
    });

    it("runs the map phase and the reduce phase as separate requests", async () => {
      const { client } = cluster;
      await putText(client, "phases", "a", "x\ny\nx\n");
      const request = { mapper: "line.py", reducer: "sum.py", data: "phases", m_num: 2, r_num: 2 };
      const map = await runJob(client, { ...request, phase: "map" });
      assert.equal(map.state, "succeeded", JSON.stringify(map.error));
      const reduce = await runJob(client, { ...request, phase: "reduce" });
      assert.equal(reduce.state, "succeeded", JSON.stringify(reduce.error));
      const lines = (await outputOf(client, reduce.id)).toString().split("\n").toSorted();
      assert.deepEqual(lines, ["", "x\t2", "y\t1"]);
      const again = await runJob(client, { ...request, phase: "reduce", from: map.id });
      assert.equal(again.state, "succeeded", JSON.stringify(again.error));
    });

    it("reads gzip inputs whole, and spills what does not fit in memory", async () => {
      const { client } = cluster;
      const { gzipSync } = await import("node:zlib");
      const text = Array.from({ length: 400_000 }, (_, i) => `record ${i} ${"p".repeat(300)}\n`);
      await putText(client, "zipped", "a.txt.gz", gzipSync(text.join(""), { level: 1 }));
      const job = await runJob(client, {
        mapper: "line.py",
        reducer: "sum.py",
        data: "zipped",
        r_num: 2,
      });
      assert.equal(job.state, "succeeded", JSON.stringify(job.error));
      const output = (await outputOf(client, job.id)).toString().split("\n");
      assert.equal(output.length, text.length + 1);
      const expected = text.map((line) => `${line.slice(0, -1)}\t1`);
      assert.deepEqual(output.slice(0, -1).toSorted(), expected.toSorted());
    });
  });
