import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ScriptProcess, UNLIMITED } from "../../internal/streaming/script_process.ts";
import { StderrLog } from "../../internal/streaming/stderr.ts";
import { until } from "../support/processes.ts";
import { type ClosedRunner, closedRunner, placeOf } from "../support/runner.ts";

/** A user that nobody else is. */
const UID = 45_000 + (process.pid % 10_000);
const OWN_USER = {
  uid: UID,
  prefix: [
    "setpriv",
    `--reuid=${UID}`,
    `--regid=${UID}`,
    "--clear-groups",
    "--inh-caps=-all",
    "--",
  ],
};
/** The first process of a container, as far as that goes without one. */
const CONTAINER = {
  prefix: ["unshare", "--pid", "--mount-proc", "--ipc", "--fork", "--kill-child"],
};

const works = (command: string[]) =>
  spawnSync(command[0] ?? "", [...command.slice(1), "true"]).status === 0;
const why = [OWN_USER, CONTAINER].every(({ prefix }) => works(prefix))
  ? false
  : "it takes root on Linux to become others, and to make namespaces";

/** Prints what the code does; all of it ends when it has. */
async function run(runner: ClosedRunner, attempt: string, code: string): Promise<string> {
  const output: Buffer[] = [];
  const log = new StderrLog();
  const script = new ScriptProcess({
    runner: runner.address,
    place: placeOf(attempt, {
      layout: { work: join(runner.folder, `${attempt}-layout`), temps: ["tmp"] },
      cwd: join(runner.folder, attempt, "work"),
    }),
    argv: ["/usr/bin/python3", "-c", code],
    env: { PATH: "/usr/bin:/bin" },
    limits: UNLIMITED,
    signal: new AbortController().signal,
    silenceMs: 0,
    log,
    onOutput: async (chunk) => void output.push(Buffer.from(chunk)),
  });
  script.endInput();
  const end = await script.ended;
  assert.deepEqual([end.code, end.over], [0, undefined], log.toString());
  return Buffer.concat(output).toString();
}

/** An empty layout, which the runner takes as its own. */
function layout(runner: ClosedRunner, attempt: string): void {
  const made = spawnSync(
    "install",
    ["-d", "-o", String(runner.about.uid)].concat(join(runner.folder, `${attempt}-layout`)),
  );
  assert.equal(made.status, 0);
}

/** Only replaces itself by a child, and counts in a file. */
const CHAIN = `
import os, time
if os.fork() == 0:
    os.setsid()
    for file in (0, 1, 2): os.close(file)
    end, n = time.monotonic() + 60, 0
    while time.monotonic() < end:
        if os.fork(): os._exit(0)
        n += 1
        if n % 16 == 0: open("sign", "w").write(str(n))
    os._exit(0)
while not os.path.exists("sign"): time.sleep(0.01)
`;
/** A child of the runner's own, which nobody may look into. */
const ORPHAN = `
import ctypes, os, time
libc = ctypes.CDLL(None)
if libc.syscall(${process.arch === "x64" ? 56 : 220}, 0x8000 | 17, 0, 0, 0, 0) == 0:
    os.setsid(); libc.prctl(4, 0, 0, 0, 0); libc.prctl(1, 0, 0, 0, 0)
    for file in (0, 1, 2): os.close(file)
    for n in range(6000): open("sign", "w").write(str(n)); time.sleep(0.01)
    os._exit(0)
while not os.path.exists("sign"): time.sleep(0.01)
`;
const SHARED =
  "open('/dev/shm/mr-test-left', 'w').write('x'); import os; print(os.path.exists('/dev/shm/mr-test-left'))";

/** Until nothing writes there any more. */
async function untilStill(path: string): Promise<void> {
  let last = readFileSync(path, "latin1");
  let since = performance.now();
  await until(`nobody who writes to ${path}`, () => {
    const now = readFileSync(path, "latin1");
    if (now !== last) [last, since] = [now, performance.now()];
    return performance.now() - since > 500;
  });
}

/** In the namespaces of a runner that is the first process of its own: a parent out of sight, as a probe has. */
function enter(runner: ClosedRunner): ChildProcess {
  const [first] = readFileSync(`/proc/${runner.pid}/task/${runner.pid}/children`, "latin1").split(
    " ",
  );
  const args = ["--target", first ?? "", "--pid", "--mount", "sleep", "600"];
  return spawn("nsenter", args, { stdio: "ignore" });
}

describe("a runner that is alone", { skip: why }, () => {
  for (const [where, options] of Object.entries({
    "as a user": OWN_USER,
    "in a container": CONTAINER,
  })) {
    it(`${where}: leaves nothing of a script, whatever it does to stay`, async () => {
      await using runner = await closedRunner(options);
      for (const [i, code] of [CHAIN, ORPHAN].entries()) {
        layout(runner, `flees-${i}`);
        await run(runner, `flees-${i}`, code);
        await untilStill(join(runner.folder, `flees-${i}`, "work", "sign"));
      }
    });
  }

  it("clears shared memory of what is its own, and not of others'", async () => {
    await using runner = await closedRunner(OWN_USER);
    const other = `/dev/shm/mr-test-other-${process.pid}`;
    writeFileSync(other, "");
    try {
      layout(runner, "leaves");
      assert.equal(await run(runner, "leaves", SHARED), "True\n");
      await until("its removal", () => !existsSync("/dev/shm/mr-test-left"));
      assert.ok(existsSync(other));
    } finally {
      rmSync(other);
    }
  });

  it("spares what comes from outside of its container, as probes do", async () => {
    await using runner = await closedRunner(CONTAINER);
    const probe = enter(runner);
    try {
      for (let i = 0; i < 30; i += 1) {
        layout(runner, `short-${i}`);
        await run(runner, `short-${i}`, "print(1)");
      }
      assert.deepEqual([probe.exitCode, probe.signalCode], [null, null]);
    } finally {
      probe.kill("SIGKILL");
    }
  });

  it("ends nobody of a user that it shares", async () => {
    const [command = "", ...prefix] = OWN_USER.prefix;
    const neighbour = spawn(command, [...prefix, "sleep", "600"], { stdio: "ignore" });
    try {
      await using runner = await closedRunner(OWN_USER);
      for (let i = 0; i < 5; i += 1) {
        layout(runner, `short-${i}`);
        await run(runner, `short-${i}`, "print(1)");
      }
      assert.deepEqual([neighbour.exitCode, neighbour.signalCode], [null, null]);
      assert.ok(readdirSync("/proc").includes(String(neighbour.pid)));
    } finally {
      neighbour.kill("SIGKILL");
    }
  });
});

describe("a runner that is told to end", { skip: process.platform !== "linux" }, () => {
  it("ends at once, though it has a worker and scripts run", async () => {
    await using runner = await closedRunner();
    const running = run(runner, "long", "import time; time.sleep(600)");
    running.catch(() => undefined);
    process.kill(runner.pid, "SIGTERM");
    await runner.ended();
    await assert.rejects(running);
  });

  it("waits for a worker that has time to finish", async () => {
    await using runner = await closedRunner({ graceMs: 600_000 });
    layout(runner, "goes-on");
    const running = run(runner, "goes-on", "import time; time.sleep(1); print(1)");
    process.kill(runner.pid, "SIGTERM");
    assert.equal(await running, "1\n");
  });
});
