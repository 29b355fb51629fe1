import assert from "node:assert/strict";
import { type ExecFileException, execFile } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { BlobServiceClient } from "@azure/storage-blob";
import type { JobJson } from "../../cmd/mr/client.ts";
import { type TestCluster, useCluster } from "../support/cluster.ts";
import { freePort, scratchFolder } from "../support/processes.ts";
import { useAzurite } from "../support/servers.ts";

const PYTHON = "/usr/bin/python3";
const PROGRAM = join(import.meta.dirname, "..", "..", "cmd", "user_interface.py");
const JOB = "20200101-000000-abcdef";
const DEADLINE = { timeout: 60_000 };

const SCRIPTS = {
  "count/map.py":
    "import sys\nfor line in sys.stdin:\n  for w in line.split(): print(w, 1, sep='\\t')",
  "count/reduce.py": [
    "import sys",
    "from itertools import groupby",
    "pairs = (line.split('\\t') for line in sys.stdin)",
    "for word, group in groupby(pairs, lambda pair: pair[0]):",
    "  print(word, sum(int(n) for _, n in group), sep='\\t')",
  ].join("\n"),
  "fails.py": "import sys\nprint('the dog ate \\x1b[31mit', file=sys.stderr)\nsys.exit(3)",
  "waits.py": "import signal\nsignal.pause()",
};
const COUNT = ["--mapper", "count/map.py", "--reducer", "count/reduce.py", "--data"];
const TEXTS = { "a.txt": "the cat and the dog\nthe end\n", "more/b.txt": "a dog\n\nno cat" };

interface Ended {
  code: number | string;
  out: string;
  err: string;
}

/** Runs the program to its end; `onMap` is called once, when it shows that the maps run. */
async function ui(
  args: string[],
  options: {
    env?: Record<string, string>;
    cwd?: string;
    python?: string[];
    onMap?: (job: string, interrupt: () => void) => void;
  } = {},
): Promise<Ended> {
  const running = promisify(execFile)(PYTHON, [...(options.python ?? []), PROGRAM, ...args], {
    // Nothing of ours by chance: no settings, no HTTP proxy.
    env: { PATH: process.env.PATH, LANG: "C.UTF-8", ...options.env },
    cwd: options.cwd,
    timeout: DEADLINE.timeout,
  });
  let [said, shown] = ["", false];
  running.child.stderr?.on("data", (chunk: string) => {
    said += chunk;
    const job = /^(\S+) map /m.exec(said)?.[1];
    if (shown || job === undefined) return;
    shown = true;
    options.onMap?.(job, () => running.child.kill("SIGINT"));
  });
  try {
    const { stdout, stderr } = await running;
    return { code: 0, out: stdout, err: stderr };
  } catch (error) {
    const { code, signal, stdout, stderr } = error as ExecFileException;
    return { code: code ?? signal ?? "", out: stdout ?? "", err: stderr ?? "" };
  }
}

/** What the words of some texts count to, as sorted lines. */
function counted(texts: string[]): string[] {
  const counts = new Map<string, number>();
  for (const word of texts.join("\n").match(/\S+/g) ?? [])
    counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, count]) => `${word}\t${count}`).sort();
}

function lines(text: string): string[] {
  return text.split("\n").slice(0, -1).sort();
}

describe("the Python user interface", DEADLINE, () => {
  const stack = new AsyncDisposableStack();
  let cluster: TestCluster;
  let folder: string;
  let service: BlobServiceClient;
  let env: Record<string, string>;

  before(async () => {
    await promisify(execFile)(PYTHON, ["-c", "import azure.storage.blob"]).catch((error: Error) =>
      assert.fail(
        `${PYTHON} has no azure.storage.blob: install python3-azure-storage\n${error.message}`,
      ),
    );
    const azurite = stack.use(await useAzurite());
    cluster = stack.use(await useCluster({ blob: azurite.connectionString }));
    folder = stack.use(await scratchFolder("user-interface")).path;
    service = BlobServiceClient.fromConnectionString(azurite.connectionString);
    env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString, MR_SERVER: cluster.url };
    await write("data/small", TEXTS);
    await write("py_scripts", SCRIPTS);
    await write("other", { "large.txt": "big data\n".repeat(1_000) });
    for (let again = 0; again < 2; again += 1) {
      const { code, err } = await ui(["setup"], { env });
      assert.equal(code, 0, err);
      assert.match(err, again ? /^dfs-dest: is there already$/m : /^dfs-source-large: created$/m);
    }
    const uploaded = await ui(["upload"], { env, cwd: folder });
    assert.equal(uploaded.code, 0, uploaded.err);
    assert.match(uploaded.err, /^data\/large: no such folder; skipped\n/);
    assert.match(uploaded.err, /^dfs-source-small: 2 files from data\/small$/m);
  });
  after(() => stack.disposeAsync());

  async function write(base: string, files: Record<string, string>): Promise<void> {
    for (const [name, text] of Object.entries(files)) {
      const path = join(folder, base, name);
      await mkdir(join(path, ".."), { recursive: true });
      await writeFile(path, text);
    }
  }

  async function blobs(container: string): Promise<string[]> {
    const found = await Array.fromAsync(service.getContainerClient(container).listBlobsFlat());
    return found.map(({ name }) => name).sort();
  }

  async function put(container: string, name: string, text: string): Promise<void> {
    await service.getContainerClient(container).uploadBlockBlob(name, text, text.length);
  }

  it("uploads folders by their names below them, and only those that are there", async () => {
    assert.deepEqual(await blobs("dfs-source-small"), ["a.txt", "more/b.txt"]);
    assert.deepEqual(await blobs("dfs-scripts"), Object.keys(SCRIPTS).sort());
    const missing = await ui(["upload", "--large", "nowhere"], { env, cwd: folder });
    assert.deepEqual([missing.code, missing.err], [2, "nowhere: No such file or directory\n"]);
    const named = await ui(["upload", "--large", "other"], { env, cwd: folder });
    assert.equal(named.code, 0, named.err);
    assert.deepEqual(await blobs("dfs-source-large"), ["large.txt"]);
  });

  it("runs a job and prints its result", async () => {
    const tasks = ["--m-num", "3", "--r-num", "2", "--name", "words"];
    const ran = await ui(["run", ...COUNT, "dfs-source-small", ...tasks, "--print"], { env });
    assert.equal(ran.code, 0, ran.err);
    assert.deepEqual(lines(ran.out), counted(Object.values(TEXTS)));
    assert.match(ran.err, /succeeded +map 3\/3 {2}reduce 2\/2\n/);
    const id = /^job (\S+) succeeded; output: dfs-dest\/\1$/m.exec(ran.err)?.[1] ?? "";
    assert.equal((await cluster.client.json<JobJson>(`/jobs/${id}`)).name, "words");

    const again = await ui(["result", id], { env });
    assert.deepEqual([again.code, again.out, again.err], [0, ran.out, ""]);
  });

  it("downloads the parts of a result, and never beside others", async () => {
    const target = join(folder, "down", "loaded");
    const args = ["run", ...COUNT, "dfs-source-small", "--r-num", "3", "--output", target];
    const ran = await ui(args, { env });
    assert.equal(ran.code, 0, ran.err);
    assert.equal(ran.out, "");
    const parts = await readdir(target);
    assert.deepEqual(parts.sort(), ["part-00000", "part-00001", "part-00002"]);
    const texts = await Promise.all(parts.map((name) => readFile(join(target, name), "utf8")));
    assert.deepEqual(lines(texts.join("")), counted(Object.values(TEXTS)));

    const again = await ui(args, { env });
    assert.equal(again.code, 2);
    assert.match(again.err, /argument --output: \S+ is a file, or holds parts already/);
  });

  it("finds a result without the proxy, but only a whole one, and only its parts", async () => {
    const [target, port] = [join(folder, "found"), await freePort()];
    const server = ["--server", `http://127.0.0.1:${port}`];
    for (const name of ["part-00000", "part-0", "part-00001/x", "part-00002.exe", "evil"])
      await put("dfs-dest", `${JOB}/${name}`, "word\t1\n");
    const early = await ui(["result", JOB, ...server], { env });
    assert.deepEqual([early.code, early.out], [1, ""]);
    assert.match(early.err, new RegExp(`^no result in dfs-dest/${JOB}: its _SUCCESS`, "m"));

    await put("dfs-dest", `${JOB}/_SUCCESS`, "");
    const found = await ui(["result", JOB, ...server, "--output", target], { env });
    assert.equal(found.code, 0, found.err);
    assert.match(found.err, new RegExp(`does not answer .*; looking in dfs-dest/${JOB}\n`));
    assert.deepEqual(await readdir(target), ["part-00000"]);
    const astray = await ui(["result", `../dfs-dest/${JOB}`, ...server], { env });
    assert.deepEqual([astray.code, astray.out], [1, ""]);
    assert.match(astray.err, / is no place of a result$/m);
    const unknown = await ui(["result", JOB], { env });
    assert.deepEqual([unknown.code, unknown.out], [0, "word\t1\n"]);
    assert.match(unknown.err, /; looking in dfs-dest/);
  });

  it("says what the proxy refuses, field by field", async () => {
    const args = ["--mapper", "nope.py", "--reducer", "count/reduce.py", "--data", "nowhere"];
    const refused = await ui(["run", ...args], { env });
    assert.equal(refused.code, 1);
    assert.match(refused.err, /^the request names what is not there$/m);
    assert.match(refused.err, /^ {2}mapper: there is no nope\.py in container dfs-scripts/m);
    assert.match(refused.err, /^ {2}data: there is no container nowhere$/m);
  });

  it("says why a job failed, without its control characters", async () => {
    const args = ["--mapper", "fails.py", "--data", "dfs-source-small", "--m-num", "1"];
    const failed = await ui(["run", ...args, "--print"], { env });
    assert.deepEqual([failed.code, failed.out], [1, ""]);
    assert.match(failed.err, /^job \S+ failed in m-00000 \(user\): .*3/m);
    assert.match(failed.err, /^the dog ate \ufffd\[31mit$/m);
  });

  it("Ctrl-C leaves the job alone; a job that is cancelled exits with 3", async () => {
    const args = ["run", "--mapper", "waits.py", "--data", "dfs-source-small", "--m-num", "1"];
    const cancel = (job: string) => cluster.client.fetch(`/jobs/${job}`, { method: "DELETE" });
    let id = "";
    const onMap = (job: string, interrupt: () => void) => {
      id = job;
      interrupt();
    };
    const left = await ui(args, { env, onMap });
    assert.equal(left.code, 130, left.err);
    assert.match(left.err, new RegExp(`^job ${id} goes on`, "m"));
    assert.equal((await cluster.client.json<JobJson>(`/jobs/${id}`)).state, "map");
    await cancel(id);

    let cancelled: Promise<unknown> | undefined;
    const ended = await ui(args, {
      env,
      onMap: (job) => {
        cancelled = cancel(job);
      },
    });
    await cancelled;
    assert.equal(ended.code, 3, ended.err);
    assert.match(ended.err, /^job \S+ cancelled/m);
  });

  it("asks for the job when its stream breaks off", async () => {
    const asked: string[] = [];
    const job = (state: string) => JSON.stringify({ id: JOB, state, output: `dfs-dest/${JOB}` });
    const proxy = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      if (request.method === "GET") response.end(job("succeeded"));
      else response.write(`${job("map")}\n{"id":`, () => response.destroy());
    });
    await once(proxy.listen(0, "127.0.0.1"), "listening");
    try {
      const server = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
      const ran = await ui(["run", ...COUNT, "any", "--server", server]);
      assert.equal(ran.code, 0, ran.err);
      assert.match(ran.err, new RegExp(`^job ${JOB} succeeded`, "m"));
      assert.deepEqual(asked, ["POST /request", `GET /jobs/${JOB}`]);
    } finally {
      proxy.closeAllConnections();
      proxy.close();
    }
  });

  it("says in one line what is wrong with its settings", async () => {
    const [ours, port] = ["AZURE_STORAGE_CONNECTION_STRING", await freePort()];
    const cases: [string[], Parameters<typeof ui>[1], number, RegExp][] = [
      [["setup"], {}, 2, new RegExp(`^${ours} is not set\n$`)],
      [["result", JOB], { env: { [ours]: "AccountKey=sesame;x" } }, 2, /is not a valid conn.*\n$/],
      [["setup"], { env, python: ["-S"] }, 2, /^azure-storage-blob is missing: pip install .*\n$/],
      [["run", ...COUNT, "any", "--print"], {}, 2, /is not set\n$/],
      [["run", ...COUNT, "any", "--server", "file:///etc"], {}, 2, /is not an http or https URL/],
      [["run", "--data", "any"], {}, 2, /^\S+ run: .*required: --mapper .*\n$/],
      [
        ["run", ...COUNT, "any", "--server", `http://127.0.0.1:${port}`],
        { python: ["-S"] },
        1,
        /^http:\S+ does not answer \(.*refused\); is the proxy running\?\n$/,
      ],
    ];
    for (const [args, options, code, said] of cases) {
      const ended = await ui(args, options);
      assert.deepEqual([ended.code, ended.out], [code, ""], ended.err);
      assert.match(ended.err, said);
      assert.doesNotMatch(ended.err, /sesame|\n./);
    }
    for (const command of [[], ["setup"], ["reset"], ["upload"], ["run"], ["result"]]) {
      const help = await ui([...command, "--help"], { python: ["-S"] });
      assert.deepEqual([help.code, help.err], [0, ""]);
      assert.match(help.out, /^usage: /);
    }
  });

  it("reset deletes results and nothing else", async () => {
    await put("dfs-dest", `${JOB}/part-00000`, "word\t1\n");
    await put("dfs-intermediate", `${JOB}/run`, "x");
    const done = await ui(["reset", "--yes"], { env });
    assert.equal(done.code, 0, done.err);
    assert.match(done.err, /^dfs-dest: [1-9]\d* blobs deleted\ndfs-intermediate: [1-9]/);
    assert.deepEqual([await blobs("dfs-dest"), await blobs("dfs-intermediate")], [[], []]);
    assert.deepEqual(await blobs("dfs-source-small"), ["a.txt", "more/b.txt"]);
  });
});
