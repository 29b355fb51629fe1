import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { MrError } from "../../internal/model/errors.ts";
import { newNumber, RunnerRequest } from "../../internal/streaming/runner_connection.ts";
import { UNLIMITED } from "../../internal/streaming/script_process.ts";
import { type VirtualEnvOptions, virtualEnv } from "../../internal/streaming/virtual_env.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { placeOf, type TestRunner, testRunner } from "../support/runner.ts";

const PYTHON = execFileSync("python3", ["-c", "import sys; print(sys.executable)"], {
  encoding: "utf8",
}).trim();
const never = new AbortController().signal;

/** A wheel of one module, `greeting`, with one program, `greet`. */
const WRITE_WHEEL = `
import sys, zipfile
files = {
  "greeting.py": "def main():\\n    print('hello from the wheel')\\n",
  "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: greeting\\nVersion: 1.0\\n",
  "greeting-1.0.dist-info/WHEEL":
    "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
  "greeting-1.0.dist-info/entry_points.txt": "[console_scripts]\\ngreet = greeting:main\\n",
}
files["greeting-1.0.dist-info/RECORD"] = "".join(name + ",,\\n" for name in files)
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
`;

/** A project whose build says its process number, and then does not end. */
const ENDLESS_BACKEND = `
import os, subprocess, sys, time
def build_wheel(*args, **kwargs):
    stray = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open(os.environ["PIDS"] + ".new", "w") as file:
        file.write(f"{os.getpid()} {stray.pid}")
    os.rename(os.environ["PIDS"] + ".new", os.environ["PIDS"])
    time.sleep(600)
`;

let runner: TestRunner;
before(async () => {
  runner = await testRunner();
});
after(() => runner[Symbol.asyncDispose]());

function environments(): string[] {
  const folder = join(runner.folder, "environments");
  return existsSync(folder) ? readdirSync(folder).toSorted() : [];
}

let projects = 0;

async function project(files: Record<string, string>) {
  const folder = await scratchFolder("venv");
  const cwd = join(folder.path, "work");
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(cwd, name, ".."), { recursive: true });
    await writeFile(join(cwd, name), text);
  }
  const lines: string[] = [];
  projects += 1;
  const attempt = `project-${projects}`;
  const key = `abc${projects}`;
  const options: VirtualEnvOptions = {
    runner: runner.address,
    place: () => placeOf(attempt, { cwd }),
    key,
    requirements: join(cwd, "requirements.txt"),
    python: PYTHON,
    env: {
      PATH: "/usr/local/bin:/usr/bin:/bin",
      HOME: cwd,
      // What a pip that is killed leaves behind.
      TMPDIR: folder.path,
      LANG: "C.UTF-8",
    },
    limits: UNLIMITED,
    signal: never,
    timeoutMs: 120_000,
    onOutput: (line) => lines.push(line),
  };
  return {
    path: folder.path,
    cwd,
    options,
    lines,
    untilGone: () =>
      until("its removal", () => !environments().some((name) => name.startsWith(`${key}-`))),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

const isUserError = (pattern: RegExp) => (error: unknown) => {
  assert.ok(MrError.is(error, "user"), String(error));
  assert.match((error as MrError).message, pattern);
  assert.ok((error as MrError).message.length < 2_500);
  return true;
};

const isAlive = (pid: number) => {
  try {
    // A zombie has ended; its parent only does not know yet.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
};

/** Something that is started as python is. */
async function fakePython(path: string, body: string): Promise<void> {
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
}

describe("a virtual environment", () => {
  it("has what the requirements name, by paths relative to the working directory too", async () => {
    await using made = await project({
      "requirements.txt": "--no-index\n./wheels/greeting-1.0-py3-none-any.whl\n",
      "wheels/.keep": "",
      // A user's file of the name of a module is not what pip imports.
      "random.py": "raise SystemExit('not this one')",
    });
    const { options, lines } = made;
    const wheel = join(made.cwd, "wheels/greeting-1.0-py3-none-any.whl");
    execFileSync(PYTHON, ["-c", WRITE_WHEEL, wheel]);
    const env = { ...options.env, PIP_NO_COLOR: "1" };
    using environment = await virtualEnv({ ...options, env });
    const python = join(environment.folder, "bin", "python");
    const said = execFileSync(python, ["-I", "-c", "import greeting; greeting.main()"]);
    assert.equal(said.toString(), "hello from the wheel\n");
    assert.equal(
      execFileSync(join(environment.folder, "bin/greet")).toString(),
      "hello from the wheel\n",
    );
    assert.ok(
      lines.some((line) => /^Successfully installed greeting-1.0/.test(line)),
      lines.join("\n"),
    );
  });

  it("is built within the job's limits, with all that its packages start", async () => {
    const project0 = "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['.']\n";
    const waits = "\nimport time; time.sleep(20)\ndef build_wheel(*a, **k): pass\n";
    const backends = {
      "more than 30 processes":
        "import os\nfor _ in range(60): os.fork() or __import__('time').sleep(20)",
      "more than 150 MB of memory":
        "held = bytearray(300 << 20)\nfor i in range(0, len(held), 4096): held[i] = 1",
    };
    for (const [why, code] of Object.entries(backends)) {
      await using made = await project({
        "requirements.txt": "./\n",
        "pyproject.toml": `${project0}[project]\nname = 'x'\nversion = '1'\n`,
        "b.py": code + waits,
      });
      const limits = { ...UNLIMITED, processes: 30, memoryBytes: 150 * 1_048_576 };
      const building = virtualEnv({ ...made.options, limits });
      await assert.rejects(building, isUserError(new RegExp(`cannot be filled: it \\w+ ${why}`)));
      await made.untilGone();
    }
  });

  it("is refused, and nothing of it left, when a requirement cannot be had", async () => {
    await using made = await project({
      "requirements.txt": "--no-index\nno-such-package-here==1.0\n",
    });
    const { options, lines } = made;
    await assert.rejects(
      virtualEnv(options),
      isUserError(/^the requirements cannot be installed:\n[\s\S]*no-such-package-here==1\.0/),
    );
    assert.ok(lines.some((line) => line.includes("no-such-package-here")));
    await made.untilGone();
  });

  it("is given up with all that was started when aborted", async () => {
    await using made = await project({
      "requirements.txt": "--no-index\n./slow\n",
      "slow/pyproject.toml":
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "slow"\nversion = "1"\n',
      "slow/backend.py": ENDLESS_BACKEND,
    });
    const { options, lines } = made;
    const pids = join(made.path, "pids");
    const end = new AbortController();
    const building = virtualEnv({
      ...options,
      env: { ...options.env, PIDS: pids },
      signal: end.signal,
    });
    building.catch(() => undefined);
    await until("pip building", () => existsSync(pids) || Promise.race([building, false]));
    const started = readFileSync(pids, "utf8").split(" ").map(Number);
    assert.ok(started.every(isAlive), lines.join("\n"));
    end.abort(new Error("enough"));
    await assert.rejects(building, (error) => MrError.is(error, "aborted"));
    await until("the end of all processes", () => !started.some(isAlive));
    await made.untilGone();
    const again = virtualEnv({ ...options, signal: end.signal });
    await assert.rejects(again, (error) => MrError.is(error, "aborted"));
  });

  it("takes no longer than it may, and keeps no stray", async () => {
    await using made = await project({ "requirements.txt": "" });
    const { options } = made;
    const python = join(made.path, "python");
    const pid = join(made.path, "pid");
    await fakePython(
      python,
      `mkdir -p "$4/bin"; setsid sleep 600 & echo $! > ${pid}.new; mv ${pid}.new ${pid}; wait`,
    );
    const building = virtualEnv({ ...options, python, timeoutMs: 1_500 });
    await assert.rejects(building, isUserError(/not installed within 1.5 s/));
    await made.untilGone();
    // On a busy machine it may not have come that far.
    const isGone = () => !existsSync(pid) || !isAlive(Number(readFileSync(pid, "utf8")));
    await until("the end of the stray", isGone);
  });

  it("says so when python cannot make any", async () => {
    await using made = await project({ "requirements.txt": "" });
    const { options } = made;
    const python = join(made.path, "python");
    for (const words of [
      "The virtual environment was not created successfully because ensurepip is not available.",
      "/usr/bin/python3: No module named venv",
    ]) {
      await fakePython(python, `mkdir -p "$4"; echo "${words}" >&2; exit 1`);
      await assert.rejects(
        virtualEnv({ ...options, python }),
        isUserError(/this worker's python3 has no venv module \(on Debian: python3-venv\)/),
      );
      await made.untilGone();
    }
    await fakePython(python, "echo something else; exit 1");
    const other = virtualEnv({ ...options, python });
    await assert.rejects(other, isUserError(/venv failed:\nsomething else$/));
    const none = virtualEnv({ ...options, python: join(made.path, "none") });
    await assert.rejects(none, isUserError(/cannot be made/));
  });

  it("gives pip the environment it was told and the last of a long output", async () => {
    await using made = await project({ "requirements.txt": "" });
    const { options, lines } = made;
    const python = join(made.path, "python");
    const pip = join(made.path, "pip");
    const talk = [
      `env; pwd; echo "$@"`,
      "for i in $(seq 1 3000); do echo line $i; done",
      "head -c 100000 /dev/zero | tr '\\0' x",
      "printf '\\ra\\r\\nthe last' >&2",
      "exit 3",
    ];
    await fakePython(pip, talk.join("\n"));
    await fakePython(python, `mkdir -p "$4/bin"; cp ${pip} "$4/bin/python"`);
    await assert.rejects(
      virtualEnv({ ...options, python, env: { PATH: "/usr/bin:/bin", ONLY: "this" } }),
      isUserError(/^the requirements cannot be installed:\na\nthe last$/),
    );
    const names = lines.slice(0, lines.indexOf(made.cwd)).map((line) => line.split("=", 1)[0]);
    const expected = ["MR_RUN", "ONLY", "PATH", "PWD", "OLDPWD", "SHLVL", "_"];
    assert.deepEqual(
      names.filter((name) => !expected.includes(name ?? "")),
      [],
    );
    assert.ok(names.includes("ONLY"));
    assert.ok(lines.includes("line 3000"));
    assert.ok(Math.max(...lines.map((line) => line.length)) < 100_000, "an endless line is held");
    const call = `-I -m pip install --disable-pip-version-check --no-input -r ${options.requirements}`;
    assert.ok(lines.includes(call));
  });
});

describe("the runner's virtual environments", () => {
  const ask = (key: string) =>
    new RunnerRequest(runner.address, newNumber(), { op: "environment", key });

  /** As a worker that builds one, and leaves it. */
  async function built(key: string): Promise<string> {
    using request = ask(key);
    const { path } = await request.next("build");
    await writeFile(join(path, "done"), "");
    request.say({ op: "built" });
    using other = ask(key);
    assert.equal((await other.next("ready")).path, path);
    return path;
  }

  it("are built by one at a time, and one only", async () => {
    const first = ask("a1");
    const { path } = await first.next("build");
    const others = Array.from({ length: 3 }, () => ask("a1"));
    first.say({ op: "built" });
    for (const request of others) assert.equal((await request.next("ready")).path, path);
    assert.notEqual(await built("a"), path);
    for (const request of [first, ...others]) request[Symbol.dispose]();
    using wrong = ask("../x");
    await assert.rejects(wrong.next("build", "ready"), /not a key/);
  });

  it("are built by the next who waits, when one has not succeeded", async () => {
    const first = ask("a2");
    const failed = await first.next("build");
    using second = ask("a2");
    using third = ask("a2");
    await writeFile(join(failed.path, "half"), "");
    first[Symbol.dispose]();
    const { path } = await second.next("build");
    assert.notEqual(path, failed.path);
    assert.deepEqual(readdirSync(path), []);
    second.say({ op: "built" });
    assert.equal((await third.next("ready")).path, path);
    await until("the end of the other", () => !existsSync(failed.path));
  });

  it("are built again when somebody has removed them", async () => {
    rmSync(await built("a3"), { recursive: true });
    assert.ok(existsSync(await built("a3")));
  });

  it("are ten and those in use, the last used", async () => {
    const users = Array.from({ length: 12 }, (_, i) => ask(`c${i.toString(16)}`));
    const paths: string[] = [];
    for (const user of users) {
      paths.push((await user.next("build")).path);
      user.say({ op: "built" });
    }
    await built("dd");
    assert.deepEqual(
      paths.filter((path) => !existsSync(path)),
      [],
    );
    for (const user of users) user[Symbol.dispose]();
    await built("ee");
    const isThere = (key: string) => environments().some((name) => name.startsWith(`${key}-`));
    await until("ten of them", () => environments().length === 10);
    assert.ok(isThere("ee") && isThere("cb") && !isThere("c0"), environments().join());
  });
});
