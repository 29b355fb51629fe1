import assert from "node:assert/strict";
import { type StdioOptions, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ServerProcess, scratchFolder, until } from "../support/processes.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const { O_RDONLY, O_RDWR, O_NONBLOCK } = constants;

/** Says `count` lines of 100 bytes as fast as it can, then one each time it is asked to. */
const TALKER = `
import { allSaid, say } from "${join(ROOT, "cmd/common/log_output.ts")}";
const line = (n) => String(n).padStart(99, ".") + "\\n";
for (let n = 0; n < Number(process.argv[1]); n += 1) say(line(n));
process.send("said");
process.on("message", (text) => say(text + "\\n"));
process.on("SIGTERM", () => allSaid().then(() => process.exit(0)));
`;

interface Talker extends AsyncDisposable {
  say(text: string): void;
  /** How much memory it has, in MB. */
  residentMb(): number;
  exited(): Promise<number | null>;
  term(): void;
}

async function talker(lines: number, stderr: number | "pipe"): Promise<Talker> {
  const argv = ["--input-type=module", "-e", TALKER, String(lines)];
  const child = spawn(process.execPath, argv, { stdio: ["ignore", "ignore", stderr, "ipc"] });
  const code = new Promise<number | null>((resolve) => child.once("exit", resolve));
  let said = false;
  child.once("message", () => {
    said = true;
  });
  await until("its having said all", () => said);
  return {
    say: (text) => child.send(text),
    residentMb: () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]) / 1024,
    exited: () => code,
    term: () => child.kill("SIGTERM"),
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await code;
    },
  };
}

/** A pipe with a name: the end that is written to blocks, as everybody's stderr does. */
async function pipe(folder: string) {
  const path = join(folder, "pipe");
  spawnSync("mkfifo", [path]);
  const reader = openSync(path, O_RDONLY | O_NONBLOCK);
  const writer = openSync(path, O_RDWR);
  const buffer = Buffer.alloc(1024 * 1024);
  let text = "";
  const read = () => {
    try {
      text += buffer.toString("latin1", 0, readSync(reader, buffer));
    } catch {
      // Nothing there at the moment.
    }
    return text;
  };
  return {
    writer,
    read,
    [Symbol.dispose]: () => [reader, writer].forEach(closeSync),
  };
}

const numbersIn = (text: string) =>
  [...text.matchAll(/^\.*(\d+)$/gm)].map(([, number]) => Number(number));

describe("a log that is not read", () => {
  it("costs no time and little memory; what is missing is counted where it is missing", async () => {
    await using folder = await scratchFolder("log");
    using fifo = await pipe(folder.path);
    const count = 200_000;
    await using process = await talker(count, fifo.writer);
    assert.ok(process.residentMb() < 200, `${process.residentMb()} MB`);
    const text = await until("the count of lines dropped", () => {
      const read = fifo.read();
      return read.includes('"dropped"') && read;
    });
    process.say("and on it goes");
    await until("the next line", () => fifo.read().endsWith("\nand on it goes\n"));
    const numbers = numbersIn(text);
    const notice = text.split("\n").find((line) => line.includes('"dropped"')) ?? "";
    const { dropped, level, time } = JSON.parse(notice);
    assert.equal(numbers.length + dropped, count);
    assert.deepEqual(numbers, [...numbers.keys()], "those that are there are the first, in order");
    assert.equal(level, "warn");
    assert.match(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.ok(text.endsWith(`${notice}\n`));
  });

  for (const [what, stderr] of [
    ["a pipe", "fifo"],
    ["a socket", "pipe"],
    ["a device without room", "/dev/full"],
  ] as const)
    it(`keeps nobody from ending: ${what}`, async () => {
      await using folder = await scratchFolder("log");
      using fifo = await pipe(folder.path);
      const device = openSync(stderr.startsWith("/") ? stderr : "/dev/null", O_RDWR);
      try {
        const fd = { fifo: fifo.writer, pipe: "pipe", "/dev/full": device } as const;
        await using process = await talker(50_000, fd[stderr]);
        process.term();
        assert.equal(await process.exited(), 0);
      } finally {
        closeSync(device);
      }
    });

  it("is nobody's end when its reader goes", async () => {
    await using folder = await scratchFolder("log");
    const path = join(folder.path, "pipe");
    spawnSync("mkfifo", [path]);
    const reader = openSync(path, O_RDONLY | O_NONBLOCK);
    const writer = openSync(path, constants.O_WRONLY);
    await using process = await talker(1, writer);
    closeSync(writer);
    closeSync(reader);
    process.say("to nobody");
    const again = openSync(path, O_RDONLY | O_NONBLOCK);
    try {
      process.say("to another one");
      const buffer = Buffer.alloc(1_000);
      let text = "";
      await until("the lines of before", () => {
        try {
          text += buffer.toString("latin1", 0, readSync(again, buffer));
        } catch {
          // Nothing there at the moment.
        }
        return text.includes("to another one\n");
      });
    } finally {
      closeSync(again);
    }
  });
});

describe("a log that is read", () => {
  it("is complete when its process ends, also if its reader is slow", async () => {
    await using folder = await scratchFolder("log");
    using fifo = await pipe(folder.path);
    await using process = await talker(1_000, fifo.writer);
    process.term();
    await until("all of it", () => numbersIn(fifo.read()).length === 1_000);
    assert.equal(await process.exited(), 0);
  });

  it("has whole lines where a file had no room for a while", async () => {
    await using folder = await scratchFolder("log");
    const path = join(folder.path, "log");
    const bounded = new ServerProcess("sh", [
      "-c",
      // A file may have one block; the rest is refused, as on a full disk.
      `ulimit -S -f 1; trap '' XFSZ; exec "$0" --input-type=module -e "$1" 2>"$2"`,
      process.execPath,
      `import { LogOutput } from "${join(ROOT, "cmd/common/log_output.ts")}";
       const output = new LogOutput(2, (n) => n + " missing\\n");
       for (let n = 0; n < 100; n += 1) output.write("x".repeat(99) + "\\n");
       process.stdout.write("said");
       setInterval(() => undefined, 1000);`,
      path,
    ]);
    try {
      await until("its having said all", () => bounded.said.includes("said"));
      assert.equal(readFileSync(path, "utf8").length % 512, 0);
      spawnSync("prlimit", ["--pid", String(bounded.child.pid), "--fsize=unlimited"]);
      const text = await until("the rest", () => {
        const read = readFileSync(path, "utf8");
        return read.length === 10_000 && read;
      });
      assert.deepEqual(new Set(text.trimEnd().split("\n")), new Set(["x".repeat(99)]));
    } finally {
      await bounded.stop();
    }
  });
});

describe("a runner's log", () => {
  const code = `import log
for i in range(3000): log.warn("line %d \\x1b[2J\\u202e" % i + "x" * 500)
`;
  const say = (stdio: StdioOptions) =>
    spawn("python3", ["-B", "-c", code], { cwd: join(ROOT, "internal/runner"), stdio });

  it("stops nobody where nothing can be written", async () => {
    const full = openSync("/dev/full", "w");
    for (const where of [full, "pipe"] as const) {
      const child = say(["ignore", "ignore", where]);
      // Of the pipe nothing is read until it has ended.
      const [status] = await once(child, "exit");
      assert.equal(status, 0);
      child.stderr?.destroy();
    }
    closeSync(full);
  });

  it("says lines of JSON that drive no terminal", async () => {
    const child = say(["ignore", "ignore", "pipe"]);
    assert.ok(child.stderr);
    const text = (await child.stderr.toArray()).join("");
    const lines = text.trimEnd().split("\n");
    assert.ok(lines.length > 100);
    assert.doesNotMatch(text, /[^\n\x20-\x7e]/);
    const { level, name, msg } = JSON.parse(lines[0] ?? "");
    assert.deepEqual([level, name], ["warn", "runner"]);
    assert.match(msg, /^line 0 /);
  });
});
