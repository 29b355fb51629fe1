import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { MrError } from "../../internal/model/errors.ts";
import {
  newNumber,
  openConnection,
  RunnerRequest,
} from "../../internal/streaming/runner_connection.ts";
import {
  type ScriptLimits,
  type ScriptPlace,
  ScriptProcess,
  UNLIMITED,
} from "../../internal/streaming/script_process.ts";
import { StderrLog } from "../../internal/streaming/stderr.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { closedRunner, placeOf, type TestRunner, testRunner } from "../support/runner.ts";

let scripts = 0;

interface Given {
  place?: Partial<ScriptPlace>;
  limits?: Partial<ScriptLimits>;
  signal?: AbortSignal;
}

function start(runner: TestRunner, code: string, { place, limits, signal }: Given = {}) {
  scripts += 1;
  const output: Buffer[] = [];
  const log = new StderrLog();
  const script = new ScriptProcess({
    runner: runner.address,
    place: placeOf(`script-${scripts}`, place),
    argv: ["/usr/bin/python3", "-c", code],
    env: { PATH: "/usr/bin:/bin", MARK: String(scripts) },
    limits: { ...UNLIMITED, ...limits },
    signal: signal ?? new AbortController().signal,
    silenceMs: 0,
    log,
    onOutput: async (chunk) => void output.push(Buffer.from(chunk)),
  });
  return { script, log, text: () => Buffer.concat(output).toString() };
}

/** What a script prints, which must end well. */
async function printed(runner: TestRunner, code: string, given: Given = {}): Promise<string> {
  const { script, log, text } = start(runner, code, given);
  script.endInput();
  const end = await script.ended;
  assert.deepEqual([end.code, end.over], [0, undefined], log.toString());
  return text();
}

/** A folder that the runner is to lay out for a script, which then has it as its own. */
async function laidOut(runner: TestRunner, files: Record<string, string>) {
  const folder = await scratchFolder("layout");
  scripts += 1;
  const attempt = `laid-${scripts}`;
  const work = join(folder.path, "work");
  mkdirSync(work);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(work, name), text);
  const place: Partial<ScriptPlace> = {
    attempt,
    layout: { work, temps: ["tmp"] },
    cwd: join(runner.folder, attempt, "work"),
  };
  return { place, attempt, work, [Symbol.asyncDispose]: folder[Symbol.asyncDispose] };
}

async function removed(runner: TestRunner, attempt: string): Promise<void> {
  using request = new RunnerRequest(runner.address, newNumber(), { op: "remove", attempt });
  await request.next("removed");
  assert.ok(!existsSync(join(runner.folder, attempt)));
}

const RUN = {
  ...{ op: "run", layout: null, temps: [], argv: ["/bin/true"], cwd: "/", env: {} },
  ...{ network: false, reads: [], writes: [], limits: UNLIMITED },
};

const isAlive = (pid: number) => existsSync(`/proc/${pid}`);

describe("a runner", () => {
  let runner: TestRunner;
  before(async () => {
    runner = await testRunner();
  });
  after(() => runner[Symbol.asyncDispose]());

  it("lays a script's folder out anew, and removes it whatever is in it", async () => {
    await using first = await laidOut(runner, { data: "one" });
    const stubborn = `
import os
print(open("data").read(), sorted(os.listdir("..")))
os.makedirs("../tmp/closed/inner")
os.chmod("../tmp/closed", 0)
for _ in range(2000):
    os.mkdir("d")
    os.chdir("d")
`;
    assert.equal(await printed(runner, stubborn, first), "one ['tmp', 'work']\n");
    assert.ok(!existsSync(first.work), "it was not moved");
    mkdirSync(first.work);
    writeFileSync(join(first.work, "data"), "two");
    const looks = "import os; print(open('data').read(), os.listdir('.'), os.listdir('../tmp'))";
    assert.equal(await printed(runner, looks, first), "two ['data'] []\n");
    await printed(runner, stubborn.replace("print", "0 and print"), {
      place: { ...first.place, layout: undefined },
    });
    await removed(runner, first.attempt);
  });

  it("removes little and much, and nothing that is only linked to", async () => {
    await using folder = await scratchFolder("elsewhere");
    writeFileSync(join(folder.path, "kept"), "kept");
    for (const leaves of [
      "pass",
      "open('a', 'w').write('a'); os.makedirs('d/e'); open('d/e/f', 'w')",
      "[open(str(i), 'w') for i in range(100)]",
      "open('large', 'w').write('a' * (1 << 22))",
      `os.symlink('${folder.path}', 'folder'); os.symlink('${folder.path}/kept', 'file')`,
    ]) {
      await using laid = await laidOut(runner, {});
      await printed(runner, `import os\n${leaves}`, laid);
      await removed(runner, laid.attempt);
    }
    assert.equal(readFileSync(join(folder.path, "kept"), "utf8"), "kept");
    await removed(runner, "never-there");
  });

  it("takes nobody's word for a path", async () => {
    for (const attempt of ["..", "a/b", "", ".hidden", "environments", "x".repeat(300)]) {
      using request = new RunnerRequest(runner.address, newNumber(), { op: "remove", attempt });
      await assert.rejects(request.next("removed"), /not an attempt/);
    }
    using nothing = new RunnerRequest(runner.address, newNumber(), { op: "nothing" });
    await assert.rejects(nothing.next("removed"), /no such request/);
  });

  it("goes on when a folder cannot be laid out, and charges the script with nothing", async () => {
    await using given = await laidOut(runner, {});
    const place = { ...given.place, layout: { work: given.work, temps: ["a/b"] } };
    const { script } = start(runner, "print(1)", { place });
    await assert.rejects(script.ended, (error: Error) => {
      assert.match(error.message, /laid out/);
      return MrError.is(error, "unavailable");
    });
    assert.equal(await printed(runner, "print(3)"), "3\n");
  });

  it("can be told to end a script before it begins", async () => {
    const ended = start(runner, "import time; time.sleep(600)", { signal: AbortSignal.abort() });
    assert.equal((await ended.script.ended).signal, "SIGKILL");
    const request = new RunnerRequest(runner.address, newNumber(), {
      ...RUN,
      attempt: "no-streams",
    });
    request.say({ op: "kill" });
    assert.equal((await request.next("ended")).signal, "SIGKILL");
    request[Symbol.dispose]();
  });

  it("counts threads, and what has ended and is not waited for", async () => {
    const threads = `
import threading, time
for _ in range(60): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
time.sleep(600)`;
    const zombies =
      "import os, time\nfor _ in range(60): os.fork() or os._exit(0)\ntime.sleep(600)";
    for (const code of [threads, zombies]) {
      const { script } = start(runner, code, { limits: { processes: 50 } });
      assert.match((await script.ended).over ?? "", /more than 50 processes/, code);
    }
  });

  it("is not told by a script whose process something is", async () => {
    const victim = start(runner, "import time\nprint(1, flush=True)\ntime.sleep(1)", {
      limits: { processes: 5 },
    });
    await until("the other script", () => victim.text() !== "");
    // Processes that flee, in the other's name as far as it can be known.
    const flees = `
import os, time
env = {"MARK": "${scripts}", "MR_RUN": "x", "TMPDIR": "/tmp"}
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            os.execve("/bin/sleep", ["sleep", "600"], env)
        os._exit(0)
`;
    await printed(runner, flees);
    victim.script.endInput();
    const end = await victim.script.ended;
    assert.deepEqual([end.code, end.over], [0, undefined]);
  });

  it("serves nobody but its worker", async () => {
    const stranger = { ...runner.address, secret: "00".repeat(32) };
    const another = openConnection(runner.address, "hello", newNumber());
    await new Promise((resolve) => another.once("end", resolve).resume());
    another.destroy();
    using request = new RunnerRequest(stranger, newNumber(), { op: "remove", attempt: "a" });
    await assert.rejects(request.next("removed"), (error) => MrError.is(error, "unavailable"));
    // Those who say nothing do not keep others out.
    const silent = Array.from({ length: 400 }, () => connect(runner.address.socket));
    for (const one of silent) one.on("error", () => undefined);
    assert.equal(await printed(runner, "print(1)"), "1\n");
    for (const one of silent) one.destroy();
  });

  it("keeps a script to its limits of time, of files, and of one file", async () => {
    const busy = start(runner, "while True: pass", { limits: { cpuSeconds: 1 } });
    assert.match((await busy.script.ended).over ?? "", /more than 1 s of processor time/);
    const among = "import os\nfor _ in range(3): os.fork()\nwhile True: pass";
    const several = start(runner, among, { limits: { cpuSeconds: 2 } });
    assert.match((await several.script.ended).over ?? "", /more than 2 s of processor time/);
    await using place = await laidOut(runner, {});
    const large = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n";
    const writes = `${large}open('f', 'wb').write(b'x' * 3_000_000)`;
    const writing = start(runner, writes, { ...place, limits: { fileBytes: 2 * 1_048_576 } });
    assert.match((await writing.script.ended).over ?? "", /a file of more than 2 MB/);
    const opens = "import os\ntry:\n  while True: os.dup(0)\nexcept OSError as e: print(e.errno)";
    assert.equal(await printed(runner, opens, { limits: { openFiles: 32 } }), "24\n");
  });

  it("ends, and all scripts with it, when its worker has gone", async () => {
    const own = await testRunner();
    const sleeps = "import os, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(600)";
    const { script, text } = start(own, sleeps);
    script.ended.catch(() => undefined);
    await until("the script", () => text().includes("\n"));
    const pids = text().split(" ").map(Number);
    assert.ok(pids.every(isAlive));
    await own[Symbol.asyncDispose]();
    await until("the end of all", () => !pids.some(isAlive));
    await assert.rejects(script.ended, (error) => MrError.is(error, "unavailable"));
  });

  it("is back after it was killed; what ran then is nobody's fault", async () => {
    const sleeps = "import os, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(600)";
    const { script, text } = start(runner, sleeps);
    script.ended.catch(() => undefined);
    await until("the script", () => text().includes("\n"));
    const [pid = 0, parent = 0] = text().split(" ").map(Number);
    process.kill(parent, "SIGKILL");
    await assert.rejects(script.ended, (error) => MrError.is(error, "unavailable"));
    await until("the script's end", () => !isAlive(pid));
    const again = () => printed(runner, "print(2)").catch(() => undefined);
    assert.equal(await until("another runner", again), "2\n");
  });
});

describe("a closed runner", () => {
  let runner: Awaited<ReturnType<typeof closedRunner>>;
  before(async () => {
    runner = await closedRunner();
  });
  after(() => runner[Symbol.asyncDispose]());

  it("gives a script a network only if it is allowed one", async () => {
    const server = createServer((socket) => socket.end("hello"));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const dials = `
import socket
try: print(socket.create_connection(("127.0.0.1", ${port})).recv(5).decode())
except OSError as error: print(error.errno)
`;
    try {
      assert.equal(await printed(runner, dials), "13\n");
      assert.equal(await printed(runner, dials, { place: { network: true } }), "hello\n");
      const local = "import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))";
      assert.equal(await printed(runner, local), "b'x'\n");
      const many =
        "import multiprocessing as m\nif __name__ == '__main__': print(m.Queue(2) and 1)";
      assert.equal(await printed(runner, many), "1\n");
    } finally {
      server.close();
    }
  });

  it("leaves a script its own folder, and nothing of others", async (test) => {
    if (runner.about.landlock === 0) return test.skip("this kernel has no Landlock");
    await using mine = await laidOut(runner, { mine: "mine" });
    await using other = await laidOut(runner, { theirs: "theirs" });
    await printed(runner, "open('more', 'w').write('x')", other);
    const tries = `
import os
def tried(what, *args):
    try: return what(*args)
    except OSError as error: return error.errno
print(tried(lambda: open("mine").read()), tried(os.mkdir, "../tmp/new"), tried(os.rename, "mine", "yours"))
print(tried(lambda: open("${other.place.cwd}/theirs").read()), tried(os.listdir, "${runner.folder}"))
print(tried(lambda: open("/tmp/x", "w")), tried(os.listdir, "/tmp"), tried(os.listdir, "/root"))
print(tried(os.kill, ${process.pid}, 0))
`;
    const lines = (await printed(runner, tries, mine)).trimEnd().split("\n");
    assert.deepEqual(lines.slice(0, 3), ["mine None None", "13 13", "13 13 13"]);
    if (runner.about.landlock >= 6) assert.equal(lines[3], "1");
    assert.deepEqual(readdirSync(join(runner.folder, other.attempt, "work")).toSorted(), [
      "more",
      "theirs",
    ]);
  });

  it("lets no script take from another, or from it, what it needs to live", async () => {
    const tries = `
import ctypes, os, resource
def tried(what, *args):
    try: return what(*args)
    except OSError as error: return error.errno
pid = ${runner.pid}
print(tried(resource.prlimit, pid, resource.RLIMIT_NOFILE, (3, 3)), tried(os.setpriority, os.PRIO_PROCESS, pid, 19))
print(tried(os.setpriority, os.PRIO_USER, 0, 19), tried(os.sched_setaffinity, pid, {0}))
print(tried(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0)))
print(resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)), os.nice(1), os.sched_setaffinity(0, {0}))
libc = ctypes.CDLL(None, use_errno=True)
print([libc.syscall(number, 0, 4096, 0o600) for number in (${process.arch === "x64" ? "29, 319, 254" : "194, 279, 27"})])
`;
    assert.equal(await printed(runner, tries), "1 1\n1 1\n1\nNone 1 None\n[-1, -1, -1]\n");
  });

  it("counts what the kernel holds for a script: sockets, pipes, shared memory", async () => {
    const kinds = {
      sockets: `
for _ in range(400):
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
    a.setblocking(False); keep += [a, b]
    try:
        while True: a.send(data)
    except BlockingIOError: pass`,
      "sockets of several processes": `
for _ in range(8):
    if os.fork() == 0: break
keep = [socket.socketpair() for _ in range(100)]`,
      pipes: `
for _ in range(1800):
    r, w = os.pipe(); os.set_blocking(w, False)
    try:
        while True: os.write(w, data)
    except BlockingIOError: pass`,
      "a file without a name": `
file = open("/dev/shm/mr-test-%d" % os.getpid(), "wb"); os.unlink(file.name)
for _ in range(40): file.write(data * 64)
file.flush()`,
    };
    for (const [kind, code] of Object.entries(kinds)) {
      const imports = "import os, socket, time\nkeep, data = [], b'x' * 65536";
      const { script, log } = start(runner, `${imports}${code}\ntime.sleep(10)`, {
        limits: { memoryBytes: 100 * 1_048_576 },
      });
      const end = await script.ended;
      assert.match(end.over ?? "", /more than 100 MB of memory/, `${kind}: ${log}`);
    }
  });

  it("lets nothing grow that the kernel holds", async () => {
    const tries = `
import ctypes, fcntl, os, socket
a, b = socket.socketpair()
was = a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
for name in (socket.SO_SNDBUF, socket.SO_RCVBUF, 32, 33): a.setsockopt(socket.SOL_SOCKET, name, 1 << 24)
print(a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == was)
a.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
print(a.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED))
r, w = os.pipe()
try: fcntl.fcntl(w, 1031, 1 << 20)
except OSError as error: print(error.errno)
print(fcntl.fcntl(w, 1032), fcntl.fcntl(w, fcntl.F_GETFD))
print(ctypes.CDLL(None).syscall(447, 0))
`;
    assert.equal(await printed(runner, tries), "True\n1\n1\n65536 1\n-1\n");
  });

  it("lets a script have many files open that hold nothing", async () => {
    const opens =
      "import os, time\nkeep = [os.dup(0) for _ in range(900)]\ntime.sleep(1)\nprint(1)";
    const given = { limits: { memoryBytes: 60 * 1_048_576 } };
    assert.equal(await printed(runner, opens, given), "1\n");
  });

  it("offers scripts to the kernel when memory runs out, before itself", async () => {
    const score = "print(open('/proc/self/oom_score_adj').read().strip())";
    const own = readFileSync(`/proc/${runner.pid}/oom_score_adj`, "latin1").trim();
    assert.deepEqual([await printed(runner, score), own === "1000"], ["1000\n", false]);
  });

  it("takes from a script what it could gain", async () => {
    const status = await printed(runner, "print(open('/proc/self/status').read())");
    assert.match(status, /NoNewPrivs:\s+1/);
    assert.match(status, /Seccomp:\s+2/);
    assert.match(readFileSync(`/proc/${runner.pid}/status`, "latin1"), /Seccomp:\s+0/);
  });
});
