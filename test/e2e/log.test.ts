import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Client } from "../../cmd/mr/client.ts";
import { putExample, putText, runJob } from "../support/cluster.ts";
import { atExit, freePort, ServerProcess, scratchFolder, until } from "../support/processes.ts";

const CMD = join(import.meta.dirname, "..", "..", "cmd");
const WORD_COUNT = { mapper: "word_count/mapper.py", reducer: "word_count/reducer.py" };

/** Of a mount namespace of its own: a file system of 64 KB in a folder, and it is full. */
const ON_A_FULL_DISK = `mount -t tmpfs -o size=64k none "$1"
  head -c 100000 /dev/zero >"$1/filler" 2>/dev/null || true
  shift; exec "$@"`;
const isAllowed = spawnSync("unshare", ["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).status === 0;

/** A pipe that nobody reads, full to the last byte. */
function stuckPipe(path: string): number {
  spawnSync("mkfifo", [path]);
  const end = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    for (const bytes of [Buffer.alloc(4096), Buffer.alloc(1)])
      assert.throws(() => {
        while (true) writeSync(end, bytes);
      }, /EAGAIN/);
    return openSync(path, constants.O_RDWR);
  } finally {
    closeSync(end);
  }
}

describe("a log that cannot be written", () => {
  it("stops no process of a cluster: their disk is full", {
    skip: !isAllowed && "nothing can be mounted here",
  }, async () => {
    await using folder = await scratchFolder("log");
    const logs = join(folder.path, "logs");
    mkdirSync(logs);
    const port = await freePort();
    const local = ["local", "--dir", folder.path, "--port", String(port)];
    const command = [process.execPath, join(CMD, "mr", "main.ts"), ...local];
    const argv = ["-m", "sh", "-ec", ON_A_FULL_DISK, "sh", logs, ...command];
    const cluster = new ServerProcess("unshare", argv);
    try {
      await until("the cluster", () => cluster.said.includes("ready") || !cluster.running, 60_000);
      assert.ok(cluster.running, cluster.said);
      const client = new Client(`http://127.0.0.1:${port}`);
      await putExample(client, "word_count");
      await putText(client, "text", "a.txt", "b a b\n");
      const job = await runJob(client, { ...WORD_COUNT, data: "text" });
      assert.equal(job.state, "succeeded", JSON.stringify(job));

      const seen = `/proc/${cluster.child.pid}/root${logs}`;
      await rm(join(seen, "filler"));
      // What waited is there, in whole lines.
      for (const name of ["proxy-1", "master-1", "worker-1"])
        await until(`a line of ${name}`, () => {
          const lines = readFileSync(join(seen, `${name}.log`), "utf8").split("\n");
          return lines.slice(0, -1).map((line) => JSON.parse(line)).length > 0;
        });
      cluster.signal("SIGTERM");
      assert.equal(await cluster.exited(), 0);
    } finally {
      await cluster.stop();
    }
  });

  for (const role of ["master", "proxy", "worker"])
    it(`neither keeps a ${role} from serving nor from ending: nobody reads it`, async () => {
      await using folder = await scratchFolder("log");
      const stderr = stuckPipe(join(folder.path, "stderr"));
      const port = String(await freePort());
      const alive = join(folder.path, "health", "alive");
      const child: ChildProcess = spawn(process.execPath, [join(CMD, role, "main.ts")], {
        stdio: ["ignore", "ignore", stderr],
        env: {
          ...process.env,
          MR_SQLITE_FILE: join(folder.path, "state.db"),
          MR_STORE_DIR: join(folder.path, "store"),
          MR_SCRATCH_DIR: join(folder.path, "scratch"),
          MR_HEALTH_DIR: join(folder.path, "health"),
          RPC_ADDRESS: `127.0.0.1:${port}`,
          RPC_PORT: port,
          HTTP_PORT: port,
          MR_PATIENCE_MS: "100",
        },
      });
      const forget = atExit(() => child.kill("SIGKILL"));
      const ended = new Promise((resolve) => child.once("exit", (code) => resolve(code)));
      closeSync(stderr);
      try {
        await until(`a ${role} that serves`, async () => {
          if (role === "worker") return existsSync(alive);
          const path = role === "proxy" ? "/healthz" : "/";
          return fetch(`http://127.0.0.1:${port}${path}`).catch(() => undefined);
        });
        // Each of these is a warning.
        if (role === "proxy")
          for (let n = 0; n < 20; n += 1) await fetch(`http://127.0.0.1:${port}/jobs`);
        child.kill("SIGTERM");
        assert.equal(await ended, 0);
      } finally {
        child.kill("SIGKILL");
        await ended;
        forget();
      }
    });

  it("does not keep a process that nobody has caught the fault of", async () => {
    await using folder = await scratchFolder("log");
    const stderr = stuckPipe(join(folder.path, "stderr"));
    const script = `import { runProcess } from "${join(CMD, "common", "run_process.ts")}";
      const fail = () => { throw new Error("nobody catches this"); };
      const start = async () => { setTimeout(fail); return { address: "here" }; };
      process.emitWarning("a warning");
      await runProcess("master", async () => ({ start, close: async () => undefined }));`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "ignore", stderr],
    });
    closeSync(stderr);
    const forget = atExit(() => child.kill("SIGKILL"));
    assert.equal(await new Promise((resolve) => child.once("exit", resolve)), 1);
    forget();
  });
});

describe("a log that can be written", () => {
  it("says what a worker waits for, and not several times a second", async () => {
    await using folder = await scratchFolder("log");
    const worker = new ServerProcess(process.execPath, [join(CMD, "worker", "main.ts")], {
      ...process.env,
      MR_STORE_DIR: join(folder.path, "store"),
      MR_SCRATCH_DIR: join(folder.path, "scratch"),
      RPC_ADDRESS: `127.0.0.1:${await freePort()},127.0.0.1:${await freePort()}`,
    });
    try {
      await until("a second look at it", () => /"times":\d+/.test(worker.said));
      const lines = worker.said.trimEnd().split("\n");
      const told = lines
        .map((line) => JSON.parse(line) as { msg: string; level: string; times?: number })
        .filter(({ msg }) => msg === "no session with a leader");
      assert.ok(told.length <= 3, worker.said);
      assert.equal(told[0]?.level, "warn");
      assert.equal(told[0]?.times, undefined);
      assert.ok((told[1]?.times ?? 0) > 1, "it was tried more often than it was told");
    } finally {
      await worker.stop();
    }
  });
});
