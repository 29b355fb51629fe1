import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { chmod, mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { MrError } from "../../internal/model/errors.ts";
import { buildVirtualEnv, type VirtualEnvOptions } from "../../internal/streaming/virtual_env.ts";
import { VirtualEnvCache } from "../../internal/streaming/virtual_env_cache.ts";
import { ServerProcess, scratchFolder, until } from "../support/processes.ts";

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

async function project(files: Record<string, string>) {
  const folder = await scratchFolder("venv");
  const cwd = join(folder.path, "work");
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(cwd, name, ".."), { recursive: true });
    await writeFile(join(cwd, name), text);
  }
  const lines: string[] = [];
  const options: VirtualEnvOptions = {
    requirements: join(cwd, "requirements.txt"),
    cwd,
    into: join(folder.path, "made", "env"),
    python: PYTHON,
    env: {
      PATH: "/usr/local/bin:/usr/bin:/bin",
      HOME: cwd,
      // What a pip that is killed leaves behind.
      TMPDIR: folder.path,
      LANG: "C.UTF-8",
    },
    signal: never,
    timeoutMs: 120_000,
    onOutput: (line) => lines.push(line),
  };
  return {
    path: folder.path,
    options,
    lines,
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
    const wheel = join(options.cwd, "wheels/greeting-1.0-py3-none-any.whl");
    execFileSync(PYTHON, ["-c", WRITE_WHEEL, wheel]);
    await buildVirtualEnv({ ...options, env: { ...options.env, PIP_NO_COLOR: "1" } });
    const python = join(options.into, "bin", "python");
    const said = execFileSync(python, ["-I", "-c", "import greeting; greeting.main()"]);
    assert.equal(said.toString(), "hello from the wheel\n");
    assert.equal(
      execFileSync(join(options.into, "bin/greet")).toString(),
      "hello from the wheel\n",
    );
    assert.ok(
      lines.some((line) => /^Successfully installed greeting-1.0/.test(line)),
      lines.join("\n"),
    );
  });

  it("is refused, and nothing of it left, when a requirement cannot be had", async () => {
    await using made = await project({
      "requirements.txt": "--no-index\nno-such-package-here==1.0\n",
    });
    const { options, lines } = made;
    await assert.rejects(
      buildVirtualEnv(options),
      isUserError(/^the requirements cannot be installed:\n[\s\S]*no-such-package-here==1\.0/),
    );
    assert.ok(lines.some((line) => line.includes("no-such-package-here")));
    assert.ok(!existsSync(options.into));
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
    const building = buildVirtualEnv({
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
    assert.ok(!existsSync(options.into));
    const again = buildVirtualEnv({ ...options, signal: end.signal });
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
    const building = buildVirtualEnv({ ...options, python, timeoutMs: 1_500 });
    await assert.rejects(building, isUserError(/not installed within 1.5 s/));
    assert.ok(!existsSync(options.into));
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
        buildVirtualEnv({ ...options, python }),
        isUserError(/this worker's python3 has no venv module \(on Debian: python3-venv\)/),
      );
      assert.ok(!existsSync(options.into));
    }
    await fakePython(python, "echo something else; exit 1");
    const other = buildVirtualEnv({ ...options, python });
    await assert.rejects(other, isUserError(/venv failed:\nsomething else$/));
    const none = buildVirtualEnv({ ...options, python: join(made.path, "none") });
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
      buildVirtualEnv({ ...options, python, env: { PATH: "/usr/bin:/bin", ONLY: "this" } }),
      isUserError(/^the requirements cannot be installed:\na\nthe last$/),
    );
    const names = lines.slice(0, lines.indexOf(options.cwd)).map((line) => line.split("=", 1)[0]);
    const expected = ["MR_VIRTUAL_ENV", "ONLY", "PATH", "PWD", "OLDPWD", "SHLVL", "_"];
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

describe("the cache of virtual environments", () => {
  const HOUR_MS = 3_600_000;

  async function cacheFolder() {
    const folder = await scratchFolder("venv-cache");
    const path = join(folder.path, "cache");
    const built: string[] = [];
    const build = async (into: string) => {
      built.push(into);
      await mkdir(into);
      await writeFile(join(into, "done"), "");
    };
    return {
      path,
      cache: new VirtualEnvCache(path),
      built,
      build,
      at: (name: string) => join(path, name),
      names: () => readdirSync(path).toSorted(),
      [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
    };
  }

  const age = (path: string, ms: number) => {
    const then = new Date(Date.now() - ms);
    return utimes(path, then, then);
  };

  it("builds one at a time of a key, and one only", async () => {
    await using made = await cacheFolder();
    const { built, build } = made;
    const caches = Array.from({ length: 4 }, () => new VirtualEnvCache(made.path));
    const paths = await Promise.all(caches.map((cache) => cache.get("ab1", build, never)));
    assert.equal(built.length, 1);
    assert.deepEqual(new Set(paths), new Set(built));
    assert.ok(existsSync(join(paths[0] ?? "", "done")));
    assert.notEqual(await made.cache.get("ab", build, never), paths[0]);
    assert.equal(built.length, 2);
    assert.equal(made.names().length, 4, "more than two environments and their markers");
    await assert.rejects(made.cache.get("../x", build, never), /not a key/);
  });

  const BUILDER = (cache: string) => `
    import { appendFileSync, existsSync, mkdirSync } from "node:fs";
    import { setTimeout as delay } from "node:timers/promises";
    import { VirtualEnvCache } from ${JSON.stringify(join(import.meta.dirname, "../../internal/streaming/virtual_env_cache.ts"))};
    const [log, go] = process.argv.slice(1);
    const build = async (into) => {
      appendFileSync(log, into + "\\n");
      mkdirSync(into);
      while (!existsSync(go)) await delay(20);
    };
    console.log(await new VirtualEnvCache(${JSON.stringify(cache)}).get("aa", build, new AbortController().signal));
  `;

  it("does so among processes, and takes over from one that dies", async () => {
    await using made = await cacheFolder();
    const [log, go] = [join(made.path, "../log"), join(made.path, "../go")];
    const builds = () => (existsSync(log) ? readFileSync(log, "utf8").trimEnd().split("\n") : []);
    const others = Array.from({ length: 3 }, () => {
      const argv = ["--input-type=module", "-e", BUILDER(made.path), log, go];
      return new ServerProcess(process.execPath, argv);
    });
    await until("the first build", () => builds().length > 0);
    const lock = () => JSON.parse(readFileSync(made.at("aa.lock"), "utf8")) as { pid: number };
    const first = others.find((other) => other.child.pid === lock().pid);
    assert.ok(first !== undefined);
    await first.stop("SIGKILL");
    await until("the second build", () => builds().length > 1);
    assert.notEqual(lock().pid, first.child.pid);
    await writeFile(go, "");
    for (const other of others.filter((one) => one !== first)) {
      assert.equal(await other.exited(), 0, other.said);
      assert.equal(other.said.trim(), builds()[1]);
    }
    assert.equal(builds().length, 2);
    const [dead = "", alive = ""] = builds();
    assert.deepEqual([existsSync(dead), existsSync(alive)], [false, true]);
    assert.equal(made.names().length, 2);
  });

  it("waits for a lock that is alive, until it is told to stop", async () => {
    await using made = await cacheFolder();
    const finish = Promise.withResolvers<void>();
    const slow = async (into: string) => {
      await mkdir(into);
      await finish.promise;
    };
    const first = made.cache.get("aa", slow, never);
    await until("the build", () => existsSync(made.at("aa.lock")) && made.names().length === 2);
    const end = new AbortController();
    const second = made.cache.get("aa", made.build, end.signal);
    await age(made.at("aa.lock"), 25_000);
    await until("a heartbeat", () => Date.now() - statSync(made.at("aa.lock")).mtimeMs < 5_000);
    end.abort();
    await assert.rejects(second, (error) => MrError.is(error, "aborted"));
    finish.resolve();
    assert.ok(existsSync(await first));
    assert.deepEqual(made.built, []);
  });

  it("breaks a lock that nobody keeps alive, whoever has it", async () => {
    await using made = await cacheFolder();
    await mkdir(made.path);
    const alive = { host: "elsewhere", pid: process.pid, thread: 9, token: "t" };
    for (const [i, text] of [JSON.stringify(alive), "", "{"].entries()) {
      const key = `a${i}`;
      await writeFile(made.at(`${key}.lock`), text);
      await mkdir(made.at(`${key}-12345678`));
      await age(made.at(`${key}.lock`), 31_000);
      const paths = await Promise.all([
        made.cache.get(key, made.build, never),
        made.cache.get(key, made.build, never),
      ]);
      assert.equal(paths[0], paths[1]);
      assert.equal(made.built.length, i + 1);
      assert.ok(!existsSync(made.at(`${key}-12345678`)), "an incomplete one is left");
      assert.ok(!existsSync(made.at(`${key}.lock`)));
    }
  });

  it("does not keep a failure", async () => {
    await using made = await cacheFolder();
    const failing = async (into: string) => {
      await mkdir(into);
      throw new MrError("user", "no such package");
    };
    await assert.rejects(made.cache.get("aa", failing, never), /no such package/);
    assert.deepEqual(made.names(), []);
    assert.ok(existsSync(await made.cache.get("aa", made.build, never)));
  });

  it("builds again what somebody has removed", async () => {
    await using made = await cacheFolder();
    const path = await made.cache.get("aa", made.build, never);
    execFileSync("rm", ["-r", path]);
    assert.ok(existsSync(await made.cache.get("aa", made.build, never)));
    assert.equal(made.built.length, 2);
  });

  it("keeps ten, and those used within the hour", async () => {
    await using made = await cacheFolder();
    const keys = Array.from({ length: 12 }, (_, i) => `c${i.toString(16)}`);
    for (const key of keys) await made.cache.get(key, made.build, never);
    assert.equal(made.names().length, 24, "one in use was removed");
    for (const [i, key] of keys.entries())
      await age(made.at(`${key}.complete`), 2 * HOUR_MS + (i < 4 ? HOUR_MS : 0) - i);
    await mkdir(made.at("dd-87654321"));
    await made.cache.get("c0", made.build, never);
    await made.cache.get("ee", made.build, never);
    const left = made.names().filter((name) => name.endsWith(".complete"));
    const gone = ["c1.complete", "c2.complete", "c3.complete"];
    const kept = keys.map((key) => `${key}.complete`).filter((name) => !gone.includes(name));
    assert.deepEqual(left, [...kept, "ee.complete"].toSorted());
    assert.equal(made.names().length, 20, made.names().join(" "));
    assert.equal(made.built.length, 13);
  });
});
