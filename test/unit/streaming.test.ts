import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { splitCommand } from "../../internal/model/command.ts";
import { resolveCommand, searchedAmong } from "../../internal/streaming/command.ts";
import {
  type ScriptLimits,
  ScriptProcess,
  UNLIMITED,
} from "../../internal/streaming/script_process.ts";
import { StderrLog } from "../../internal/streaming/stderr.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { placeOf, type TestRunner, testRunner } from "../support/runner.ts";

describe("stderr", () => {
  const logOf = (...chunks: string[]) => {
    const log = new StderrLog();
    for (const chunk of chunks) log.push(Buffer.from(chunk));
    log.end();
    return log;
  };

  it("consumes reporter lines and logs every other one", () => {
    const log = logOf(
      "one\nreporter:coun",
      "ter:g,n,2\r\nreporter:counter:g,n,-1\rreporter:status:half",
      " way\ntwo",
    );
    assert.deepEqual({ ...log.counters }, { "g,n": 1 });
    assert.equal(log.status, "half way");
    assert.equal(log.toString(), "one\ntwo\n");
  });

  it("takes a malformed reporter line for a warning", () => {
    const log = logOf("reporter:counter:g,n,x\nreporter:counter:n\nreporter:what\n");
    assert.deepEqual({ ...log.counters }, {});
    assert.match(log.toString(), /^warning: malformed.*\nwarning: malformed.*\nreporter:what\n$/);
  });

  it("keeps a bounded head and tail, of endless lines too", () => {
    const log = new StderrLog();
    log.push(Buffer.from("first\n"));
    for (let i = 0; i < 100_000; i += 1) log.push(Buffer.from(`line ${i} ${"x".repeat(50)}\n`));
    for (let i = 0; i < 1_000; i += 1) log.push(Buffer.alloc(65_536, "y"));
    log.push(Buffer.from("\nlast\n"));
    log.end();
    const text = log.toString();
    assert.ok(text.length < 400_000, String(text.length));
    assert.match(text, /^first\n[\s\S]*bytes left out[\s\S]*\nlast\n$/);
    assert.match(log.tail(100), /^last\n$/);
  });
});

describe("commands", () => {
  it("are split at spaces, with quotes and without a shell", () => {
    assert.deepEqual(splitCommand(`a.py --x "b c" 'd e' f"g h"i $HOME ; rm`), [
      "a.py",
      "--x",
      "b c",
      "d e",
      "fg hi",
      "$HOME",
      ";",
      "rm",
    ]);
  });

  const resolve = async (name: string, text: string, args: string[] = [], python?: string) =>
    (await resolveCommand(name, Buffer.from(text), args, python)).argv;

  it("find their interpreter by #! or extension", async () => {
    assert.match((await resolve("a.py", "print(1)\n", ["x"]))[0] ?? "", /python3?[.\d]*$/);
    const env = await resolve("b", "#!/usr/bin/env python3\r\nprint(1)\n");
    assert.deepEqual(env.slice(1), ["b"]);
    assert.equal((await resolve("c.mjs", ""))[0], process.execPath);
    assert.deepEqual((await resolve("d.sh", "#!/bin/bash -e\n")).slice(1), ["-e", "d.sh"]);
    const none = resolve("e.rb", "#!/usr/bin/env no-such-interpreter\n");
    await assert.rejects(none, /no-such-interpreter is not on this worker/);
    await assert.rejects(resolve("f", "#!  \n"), /the first line of f names no interpreter/);
    await assert.rejects(resolve("g", "#!/usr/bin/env ..\n"), /\.\. is not on this worker/);
    const odd = await resolve("h", "#!/usr/bin/env -S A=1 sh -e\n");
    assert.deepEqual(odd, ["/usr/bin/env", "-S A=1 sh -e", "h"]);
  });

  it("have nothing executed that they name: a path is looked up where they run", async () => {
    await using folder = await scratchFolder("evil");
    const marker = join(folder.path, "executed");
    for (const name of ["python3", "python", "env", "tool"])
      writeFileSync(join(folder.path, name), `#!/bin/sh\ntouch ${marker}\necho /bin/sh\n`, {
        mode: 0o755,
      });
    const at = (name: string) => join(folder.path, name);
    for (const [line, ...expected] of [
      [at("python3"), at("python3"), "s"],
      [`${at("python3")} -u`, at("python3"), "-u", "s"],
      [at("python"), at("python"), "s"],
      [`${at("env")} python3`, at("env"), "python3", "s"],
      [`/usr/bin/env ${at("python3")}`, at("python3"), "s"],
      [`/usr/bin/env -S ${at("python3")} -u`, at("python3"), "-u", "s"],
      ["./python3", "./python3", "s"],
      ["/no/such/python3", "/no/such/python3", "s"],
    ] as [string, ...string[]][]) {
      // Not even as a part of the operator's virtual environment.
      for (const python of [undefined, "/venv/bin/python"])
        assert.deepEqual(await resolve("s", `#!${line}\n`, [], python), expected, line);
    }
    assert.ok(!existsSync(marker));
  });

  it("run in the virtual environment where they name the system's python", async () => {
    for (const line of ["/usr/bin/env python3", "/usr/bin/python3", "/bin/python", "python3"])
      assert.deepEqual(await resolve("s", `#!${line}\n`, [], "/venv/bin/python"), [
        "/venv/bin/python",
        "s",
      ]);
  });

  it("are not looked for where a user's files may lie", async () => {
    await using folder = await scratchFolder("search");
    writeFileSync(join(folder.path, "their-tool"), "#!/bin/sh\n", { mode: 0o755 });
    const { PATH = "" } = process.env;
    const here = process.cwd();
    try {
      process.chdir(folder.path);
      for (const path of [`:${PATH}`, `.:${PATH}`, `${PATH}:`, "..:"]) {
        process.env.PATH = path;
        const search = resolve("s", "#!/usr/bin/env their-tool\n");
        await assert.rejects(search, /their-tool is not on this worker/, path);
        assert.equal(await searchedAmong([folder.path]), undefined);
      }
      const bin = join(folder.path, "bin");
      symlinkSync(folder.path, bin);
      process.env.PATH = `${bin}:${PATH}`;
      assert.equal(await searchedAmong(["/elsewhere", folder.path]), bin);
    } finally {
      process.chdir(here);
      process.env.PATH = PATH;
    }
  });
});

let marks = 0;

/** Processes that have this in their environment. */
function processesWith(mark: string): string[] {
  return readdirSync("/proc").filter((name) => {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "latin1");
      const dead = stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
      return !dead && readFileSync(`/proc/${name}/environ`, "latin1").split("\0").includes(mark);
    } catch {
      return false;
    }
  });
}

describe("a script's process", () => {
  let runner: TestRunner;
  before(async () => {
    runner = await testRunner();
  });
  after(() => runner[Symbol.asyncDispose]());

  const start = (
    code: string,
    options: { signal?: AbortSignal; silenceMs?: number; limits?: Partial<ScriptLimits> } = {},
  ) => {
    marks += 1;
    const mark = `MR_TEST_MARK=${process.pid}-${marks}`;
    const output: Buffer[] = [];
    const log = new StderrLog();
    const script = new ScriptProcess({
      runner: runner.address,
      place: placeOf(`script-${marks}`),
      argv: ["/usr/bin/env", "python3", "-c", code],
      env: { PATH: process.env.PATH ?? "", MR_TEST_MARK: mark.slice(mark.indexOf("=") + 1) },
      limits: { ...UNLIMITED, ...options.limits },
      signal: options.signal ?? new AbortController().signal,
      silenceMs: options.silenceMs ?? 0,
      log,
      onOutput: async (chunk) => {
        output.push(chunk);
      },
    });
    return { script, log, mark, text: () => Buffer.concat(output).toString() };
  };

  it("does not deadlock on much stderr before the first read, nor on much output", async () => {
    const { script, log, text } = start(
      "import sys\nfor i in range(200000): sys.stderr.write('e' * 99 + '\\n')\nfor line in sys.stdin: sys.stdout.write(line * 3)\n",
    );
    let lines = 0;
    while (lines < 50_000 && (await script.write(Buffer.from(`${"i".repeat(99)}\n`.repeat(100)))))
      lines += 100;
    script.endInput();
    const end = await script.ended;
    assert.deepEqual([end.code, script.inputUnread, text().length], [0, false, 50_000 * 300]);
    assert.match(log.toString(), /left out/);
  });

  it("says when input was left unread", async () => {
    const { script } = start("print('done')");
    while (await script.write(Buffer.alloc(65_536, "x\n")));
    script.endInput();
    const end = await script.ended;
    assert.deepEqual([end.code, script.inputUnread], [0, true]);
  });

  it("says so too when it ended while we had nothing to give", async () => {
    const { script } = start("import sys\nsys.stdin.readline()\n");
    assert.equal(await script.write(Buffer.from("one\n")), true);
    const end = await script.ended;
    assert.equal(end.code, 0);
    assert.equal(script.inputUnread, false);
    assert.equal(await script.write(Buffer.from("two\n")), false);
    assert.equal(script.inputUnread, true);
  });

  it("is killed with all it started, even when told before it runs", async () => {
    for (const early of [true, false]) {
      const stop = new AbortController();
      if (early) stop.abort();
      const code =
        "import subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\nprint(child.pid, flush=True)\ntime.sleep(600)\n";
      const { script, text } = start(code, { signal: stop.signal });
      if (!early) {
        await until("the child", () => text().includes("\n"));
        stop.abort();
      }
      assert.equal((await script.ended).signal, "SIGKILL");
      const child = Number(text().trim());
      if (child > 0)
        await until("the grandchild's end", () => {
          try {
            process.kill(child, 0);
            return false;
          } catch {
            return true;
          }
        });
    }
  });

  it("takes its daemons with it: those that keep its pipes, leave its session, lose their parent", async () => {
    const code = `import os, subprocess, sys
sleep = ['sleep', '600']
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp('sleep', sleep)
    os._exit(0)
os.wait()
print('out')
`;
    const { script, text, mark } = start(code);
    script.endInput();
    assert.equal((await script.ended).code, 0);
    assert.equal(text(), "out\n");
    await until("the end of its daemons", () => processesWith(mark).length === 0);
  });

  it("is killed when it goes over a limit, with all it started", async () => {
    const cases: [limits: Partial<ScriptLimits>, code: string, why: RegExp][] = [
      [
        { memoryBytes: 150e6 },
        "held = [bytes(1 << 20) * 1 for _ in iter(int, 1)]",
        /143 MB of memory/,
      ],
      [
        { memoryBytes: 150e6 },
        "import os\nfor _ in range(3): os.fork()\nheld = bytearray(os.urandom(1 << 16)) * 640\nimport time\ntime.sleep(60)",
        /143 MB of memory/,
      ],
      [
        { memoryBytes: 150e6 },
        "import subprocess\nsubprocess.run(['sh', '-c', '( python3 -c \"held = [bytes(1 << 20) * 1 for _ in iter(int, 1)]\" & ) ; sleep 60'])",
        /143 MB of memory/,
      ],
      [
        { processes: 20 },
        "import subprocess\nsubprocess.run(['sh', '-c', 'for i in $(seq 30); do ( sleep 60 & ) ; done; sleep 60'])",
        /more than 20 processes/,
      ],
      [
        { processes: 20 },
        "import os, time\nfor _ in range(30):\n  if os.fork() == 0: time.sleep(60)\ntime.sleep(60)",
        /more than 20 processes/,
      ],
      [
        { outputBytes: 1e6 },
        "import sys\nwhile True: sys.stdout.write('x' * 999 + '\\n')",
        /1 MB on stdout/,
      ],
      [
        { outputBytes: 1e6 },
        "import sys\nwhile True: sys.stderr.write('x' * 999 + '\\n')",
        /1 MB on stderr/,
      ],
    ];
    for (const [limits, code, why] of cases) {
      const { script, mark } = start(code, { limits });
      script.endInput();
      const end = await script.ended;
      assert.equal(end.signal, "SIGKILL", code);
      assert.match(end.over ?? "", why);
      await until(`the end of ${code}`, () => processesWith(mark).length === 0);
    }
  });

  it("is told what it took, when it was gone before anybody looked", async () => {
    for (const [bytes, why] of [
      [300_000_000, "it took more than 143 MB of memory"],
      [1_000, undefined],
    ] as const) {
      const code = `import os\nheld = b'x' * ${bytes}\nos.abort()`;
      const { script } = start(code, { limits: { memoryBytes: 150e6 } });
      script.endInput();
      assert.equal((await script.ended).over, why);
    }
  });

  it("keeps nothing of what was written to it", async () => {
    const { script } = start("import sys\nwhile sys.stdin.buffer.read(1 << 20): pass\n");
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    for (let i = 0; i < 400; i += 1) {
      assert.ok(await script.write(Buffer.alloc(1 << 20)));
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    script.endInput();
    assert.equal((await script.ended).code, 0);
    assert.ok(most < 200 << 20, `${most >> 20} MB of 400`);
  });

  it("is killed after silence", async () => {
    const { script } = start("import time\ntime.sleep(600)\n", { silenceMs: 300 });
    script.endInput();
    const end = await script.ended;
    assert.equal(end.signal, "SIGKILL");
    assert.match(end.over ?? "", /no sign of life for 0.3 s/);
  });

  it("ends in failure when it cannot be started", async () => {
    const log = new StderrLog();
    const script = new ScriptProcess({
      runner: runner.address,
      place: placeOf("none"),
      argv: ["/no/such/program"],
      env: {},
      signal: new AbortController().signal,
      silenceMs: 0,
      limits: UNLIMITED,
      log,
      onOutput: async () => undefined,
    });
    script.endInput();
    // With a leash it is the leash that cannot start it.
    const why = await script.ended.then(
      ({ code }) => `exit ${code} ${log}`,
      (error: Error) => error.message,
    );
    assert.match(why, /no\/such\/program/);
  });
});
