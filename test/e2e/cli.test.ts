import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { processesIn, type TestCluster, useCluster } from "../support/cluster.ts";
import { ServerProcess, scratchFolder, until } from "../support/processes.ts";

const MAIN = join(import.meta.dirname, "..", "..", "cmd", "mr", "main.ts");
const EXAMPLES = join(import.meta.dirname, "..", "..", "examples", "py_scripts");

interface Ran {
  code: number;
  out: string;
  err: string;
}

function mr(args: string[], server: string): Promise<Ran> {
  const env = { ...process.env, MR_SERVER: server };
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env, maxBuffer: 1 << 26 }, (error, out, err) => {
      resolve({ code: error === null ? 0 : Number(error.code), out, err });
    });
  });
}

describe("mr", () => {
  let cluster: TestCluster;
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  const run = (...args: string[]) => mr(args, cluster.url);
  before(async () => {
    cluster = await useCluster({ workers: 1, slots: 2 });
    folder = await scratchFolder("cli");
    await mkdir(join(folder.path, "in", "sub"), { recursive: true });
    await writeFile(join(folder.path, "in", "a.txt"), "to be or not to be\n");
    await writeFile(join(folder.path, "in", "sub", "b.txt"), "to be sure\n");
    await writeFile(join(folder.path, "in", "empty.txt"), "");
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  it("runs a job here, without a cluster, and says where a script failed", async () => {
    const mapper = join(folder.path, "lengths.py");
    await writeFile(mapper, "import sys\nfor line in sys.stdin: print(1 // (len(line) - 11))\n");
    const input = join(folder.path, "in");
    const cat = await run(
      "run",
      "--local",
      "--mapper",
      "cat",
      "--reduces",
      "0",
      "--maps",
      "1",
      input,
    );
    assert.equal(cat.code, 0, cat.err);
    assert.equal(cat.out, "to be or not to be\nto be sure\n");
    const failed = await run("run", "--local", "--mapper", mapper, "--maps", "1", input);
    assert.equal(failed.code, 1);
    assert.match(
      failed.err,
      /ZeroDivisionError[\s\S]*at record 2 of its input, byte 0 of input\/sub\/b\.txt:\n +to be sure/,
    );
  });

  it("leaves nothing of a job here that was interrupted", async () => {
    const script = join(folder.path, "waits.sh");
    await writeFile(script, "#!/bin/sh\nexec sleep 600\n", { mode: 0o755 });
    const temp = join(folder.path, "temp");
    await mkdir(temp);
    const args = [MAIN, "run", "--local", "--mapper", script, join(folder.path, "in", "a.txt")];
    const child = spawn(process.execPath, args, {
      env: { ...process.env, TMPDIR: temp },
      stdio: "ignore",
    });
    const exit = once(child, "exit");
    await until("its script", () => processesIn(temp, "/scripts/").length > 0);
    child.kill("SIGINT");
    assert.deepEqual(await exit, [130, null]);
    assert.deepEqual(processesIn(temp), []);
    assert.deepEqual(await readdir(temp), []);
  });

  it("uploads, runs, shows and downloads", async () => {
    const upload = await run("upload", join(folder.path, "in"), "words/in", "--json");
    assert.deepEqual(JSON.parse(upload.out), { files: 3, bytes: 30 });
    const word = (name: string) => join(EXAMPLES, "word_count", name);
    const args = ["--mapper", word("mapper.py"), "--reducer", word("reducer.py")];
    const job = await run("run", ...args, "--data", "words/in/", "--reduces", "1", "--name", "n");
    assert.equal(job.code, 0, job.err);
    assert.equal(job.out, "be\t3\nnot\t1\nor\t1\nsure\t1\nto\t3\n");
    assert.match(job.err, /succeeded in .* 2 records/);
    const [listed] = JSON.parse((await run("jobs", "--json")).out) as { id: string }[];
    const id = listed?.id ?? "";
    assert.equal((await run("cat", id)).out, job.out);
    assert.equal((await run("cat", "words/in/a.txt")).out, "to be or not to be\n");
    assert.match((await run("jobs")).out, /^JOB +STATE .*\n.* succeeded +\d+\/\d+ +1\/1 .* n\n$/);
    assert.match((await run("status", id, "--tasks")).out, /r-00000 +done/);
    assert.match((await run("workers")).out, /connected/);
    assert.equal((await run("watch", id, "--show", "0")).code, 0);
    const target = join(folder.path, "out");
    assert.equal((await run("download", id, target)).code, 0);
    assert.deepEqual((await readdir(target)).toSorted(), ["_SUCCESS", "part-00000"]);
    assert.equal(await readFile(join(target, "part-00000"), "utf8"), job.out);
    assert.equal((await run("download", "words/in/", join(folder.path, "back"))).code, 0);
    const back = await readFile(join(folder.path, "back", "sub", "b.txt"), "utf8");
    assert.equal(back, "to be sure\n");
  });

  it("keeps two scripts apart that are called alike", async () => {
    for (const [name, mark] of [
      ["m", "M"],
      ["r", "R"],
    ] as const) {
      await mkdir(join(folder.path, name), { recursive: true });
      const code = `import sys\nfor line in sys.stdin: print("${mark} " + line.strip())\n`;
      await writeFile(join(folder.path, name, "main.py"), code);
    }
    const script = (name: string) => join(folder.path, name, "main.py");
    const args = ["--mapper", script("m"), "--reducer", script("r"), "--data", "words/in/sub"];
    assert.equal((await run("run", ...args)).out, "R M to be sure\n");
  });

  it("shows a bounded part of a result without line ends", async () => {
    const script = join(folder.path, "long.py");
    await writeFile(script, "import sys\nfor _ in range(30): sys.stdout.write('x' * 1000000)\n");
    const args = ["--mapper", script, "--data", "words/in/sub", "--maps", "1", "--reduces", "0"];
    const { code, out, err } = await run("run", ...args);
    assert.equal(code, 0, err);
    assert.ok(out.length > 60_000 && out.length < 200_000, String(out.length));
    assert.match(err, /all of it: mr cat/);
  });

  it("exits with the job's code, and says why it failed", async () => {
    const script = join(folder.path, "bad.py");
    await writeFile(script, "raise KeyError('lost')\n");
    const bad = await run("run", "--mapper", script, "--data", "words", "--max-attempts", "2");
    assert.equal(bad.code, 1);
    assert.match(
      bad.err,
      /failed \(user in m-\d+, attempt .*\): the script exited with 1 \(tried 2 times\)/,
    );
    assert.match(bad.err, /KeyError: 'lost'/);
    const [job] = JSON.parse((await run("jobs", "--json")).out) as { id: string }[];
    assert.match((await run("logs", job?.id ?? "")).out, /== m-\d+\/\d+-\d+ ==\nTraceback/);
  });

  it("cancels a job", async () => {
    const script = join(folder.path, "slow.py");
    await writeFile(script, "import time\ntime.sleep(600)\n");
    const detached = await run("run", "--mapper", script, "--data", "words", "--detach");
    const id = detached.out.trim();
    const watching = run("watch", id);
    const cancel = await run("cancel", id);
    assert.equal(cancel.out, `job ${id} cancelled\n`);
    assert.equal((await watching).code, 3);
  });

  it("says what is wrong with the command line, or the request", async () => {
    for (const [args, code, pattern] of [
      [[], 2, /^$/],
      [["no-such"], 2, /no such command/],
      [["run", "--data", "x"], 2, /--mapper is missing/],
      [["run", "--maps", "x", "--mapper", "m", "--data", "d"], 2, /--maps: a whole number/],
      [["run", "--no-such-flag"], 2, /no-such-flag/],
      [["upload", "/no/such/file", "words"], 2, /no such file/],
      [["upload", MAIN, "Bad_Name"], 2, /lower-case/],
      [
        ["run", "--mapper", "gone.py", "--data", "gone"],
        1,
        /mapper: there is no gone.py[\s\S]*data: there is no container/,
      ],
      [["status", "x"], 1, /no job x/],
    ] as [string[], number, RegExp][]) {
      const { code: actual, err } = await run(...args);
      assert.equal(actual, code, `${args}: ${err}`);
      assert.match(err, pattern);
      assert.doesNotMatch(err, /\n +at /, "a stack is no message");
    }
    const away = await mr(["jobs"], "http://127.0.0.1:9");
    assert.match(away.err, /does not answer .*is it running\?/);
    assert.match((await run("--version")).out, /^mr \d+\.\d+\.\d+, Node\.js v24/);
    for (const name of ["local", "run", "upload", "cat"])
      assert.match((await run(name, "--help")).out, new RegExp(`^usage: mr ${name}`));
  });

  it("starts a local cluster, restarts what dies, and leaves nothing behind", async () => {
    const dir = join(folder.path, "local");
    const args = [MAIN, "local", "--dir", dir, "--port", "0", "--workers", "1", "--masters", "2"];
    const local = new ServerProcess(process.execPath, args);
    try {
      const url = await until("ready", () => /^ready (\S+)$/m.exec(local.said)?.[1]);
      const workers = JSON.parse((await mr(["workers", "--json"], url)).out) as { pid: number }[];
      assert.equal(workers.length, 1);
      const second = await mr(args.slice(1), url);
      assert.equal(second.code, 2);
      assert.match(second.err, /is in use by process \d+/);
      process.kill(workers[0]?.pid ?? 0, "SIGKILL");
      await until("a new worker", async () => {
        const now = JSON.parse((await mr(["workers", "--json"], url)).out) as {
          pid: number;
          state: string;
        }[];
        return now.some(({ pid, state }) => pid !== workers[0]?.pid && state === "connected");
      });
      const restart = /worker-1 .* ended by SIGKILL; starting it again/;
      await until("word of it", () => restart.test(local.said));
      const leader = (await (await fetch(`${url}/leader`)).json()) as { pid: number };
      local.signal("SIGINT");
      assert.equal(await local.exited(), 0, local.said);
      assert.throws(() => process.kill(leader.pid, 0), "the leader still runs");
      await assert.rejects(fetch(`${url}/healthz`));
      assert.deepEqual((await readdir(dir)).toSorted(), ["logs", "state.db"]);
    } finally {
      await local.stop("SIGKILL");
    }
  });
});
