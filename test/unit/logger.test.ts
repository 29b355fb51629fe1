import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it, mock } from "node:test";
import { promisify } from "node:util";
import { Repeats } from "../../cmd/common/repeats.ts";

const run = promisify(execFile);
const LOGGER = join(import.meta.dirname, "..", "..", "cmd", "common", "logger.ts");

/** The lines of a process that does this with its logger. */
async function linesOf(body: string): Promise<Record<string, unknown>[]> {
  const script = `import { createLogger, hearLibraries } from "${LOGGER}";
    const logger = createLogger("worker", "info");
    ${body}`;
  const { stderr } = await run(process.execPath, ["--input-type=module", "-e", script]);
  const lines = stderr.split("\n").slice(0, -1);
  for (const line of lines) {
    const names = [...line.matchAll(/"(\w+)":/g)].map(([, name]) => name);
    assert.deepEqual(names, [...new Set(names)], `a name stands twice in ${line}`);
  }
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe("a line of the log", () => {
  it("is read by people: its level is a word, its time a time of the day", async () => {
    const [line, ...more] = await linesOf(`logger.info({ slots: 2 }, "started");`);
    const { time, pid, ...rest } = line ?? {};
    assert.deepEqual(rest, { level: "info", name: "worker", slots: 2, msg: "started" });
    assert.equal(new Date(String(time)).toISOString(), time);
    assert.equal(typeof pid, "number");
    assert.deepEqual(more, []);
  });

  it("says everything once, whatever its fields are called", async () => {
    const [line] = await linesOf(
      `logger.info({ pid: 1, name: "b", time: 2, level: 3, msg: "c", other: 4 }, "said");`,
    );
    assert.equal(line?.name, "worker");
    assert.equal(line?.msg, "said");
    const { pid_, name_, time_, level_, msg_, other } = line ?? {};
    assert.deepEqual([pid_, name_, time_, level_, msg_, other], [1, "b", 2, 3, "c", 4]);
  });

  it("is one, too, where a library prints or Node warns", async () => {
    const lines = await linesOf(`hearLibraries("proxy");
      console.error("E Connection rejected by server because of %s", "excess pings");
      console.log("two\\nlines");
      process.emitWarning("too many listeners", { code: "X" });
      await import("node:sqlite");`);
    assert.deepEqual(
      lines.map(({ level, name, error }) => [level, name, error]),
      [
        ["warn", "proxy", "E Connection rejected by server because of excess pings"],
        ["warn", "proxy", "two\nlines"],
        ["warn", "proxy", "too many listeners"],
      ],
    );
  });
});

describe("a warning that repeats itself", () => {
  const said: string[] = [];
  const repeats = () =>
    new Repeats((fields, message) => said.push(`${message} ${JSON.stringify(fields)}`));
  const drain = () => said.splice(0);

  beforeEach(() => mock.timers.enable({ apis: ["setTimeout"] }));
  afterEach(() => {
    mock.timers.reset();
    drain();
  });

  it("is said at once, then at growing intervals with how often it came", () => {
    const log = repeats();
    const heard: [atSecond: number, line: string][] = [];
    for (let tenth = 0; tenth < 700; tenth += 1) {
      log.say({ error: "no leader", tenth }, "no session");
      for (const line of drain()) heard.push([Math.round(tenth / 10), line]);
      mock.timers.tick(100);
    }
    assert.deepEqual(
      heard.map(([second]) => second),
      [0, 1, 3, 7, 15, 31, 63],
    );
    const times = heard.map(([, line]) => Number(/"times":(\d+)/.exec(line)?.[1] ?? 1));
    assert.deepEqual(times, [1, 9, 20, 40, 80, 160, 320]);
    assert.match(heard[1]?.[1] ?? "", /"tenth":9,/, "the last of them is told");
  });

  it("is the same whatever numbers are in its reason", () => {
    const log = repeats();
    for (let n = 0; n < 100; n += 1)
      log.say({ error: `10.0.0.${n}:${5_000 + n}: no answer in 2.00${n} s` }, "failed");
    log.say({ error: "request 5a6b7c8d-901e-0054-1f6a failed" }, "failed");
    log.say({ error: "request 01234567-901e-0054-ffff failed" }, "failed");
    assert.equal(drain().length, 2);
  });

  it("is said at once when its reason changes, and when it comes back after a while", () => {
    const log = repeats();
    log.say({ error: "a" }, "failed");
    log.say({ error: "b" }, "failed");
    log.say({ error: "b" }, "failed");
    assert.equal(drain().length, 2);
    mock.timers.tick(1_000);
    assert.deepEqual(drain(), ['failed {"error":"b","times":1}']);
    mock.timers.tick(10_000);
    assert.deepEqual(drain(), []);
    log.say({ error: "b" }, "failed");
    assert.deepEqual(drain(), ['failed {"error":"b"}']);
  });

  it("is not told apart without end: reasons may all be different", () => {
    const log = repeats();
    for (let n = 0; n < 10_000; n += 1) log.say({ error: "x".repeat(n) }, "a peer was refused");
    assert.ok(drain().length <= 101);
    mock.timers.tick(1_000);
    assert.equal(drain().filter((line) => line.includes('"times":9899')).length, 1);
  });
});
