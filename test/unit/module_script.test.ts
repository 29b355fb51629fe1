import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import * as wordCount from "../../examples/js_modules/word_count.ts";
import { moduleCommand } from "../../internal/streaming/module_command.ts";
import { type ModuleRole, moduleRoles } from "../../internal/streaming/module_exports.ts";
import {
  type ScriptOptions,
  ScriptProcess,
  UNLIMITED,
} from "../../internal/streaming/script_process.ts";
import { StderrLog } from "../../internal/streaming/stderr.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { placeOf, type TestRunner, testRunner } from "../support/runner.ts";

const MB = 1_048_576;
const SEPARATORS = { input: Buffer.from("\t"), keyFields: 1, output: Buffer.from("\t") };

type Extra = Partial<ScriptOptions> & {
  files?: Record<string, string>;
  name?: string;
  separators?: typeof SEPARATORS;
  memoryBytes?: number;
  outputBytes?: number;
};

let runner: TestRunner;
before(async () => {
  runner = await testRunner();
});
after(() => runner[Symbol.asyncDispose]());
let modules = 0;

/** A module in a folder of its own, which goes with the scope. */
async function start(role: ModuleRole, code: string, extra: Extra = {}) {
  const folder = await scratchFolder("module");
  const { files = {}, name = "code.ts", separators = SEPARATORS, ...rest } = extra;
  const { memoryBytes = 0, outputBytes = 0, ...options } = rest;
  modules += 1;
  for (const [file, text] of Object.entries({ ...files, [name]: code }))
    await writeFile(join(folder.path, file), text);
  const output: Buffer[] = [];
  const log = new StderrLog();
  const script = new ScriptProcess({
    runner: runner.address,
    place: placeOf(`module-${modules}`, { cwd: folder.path }),
    argv: moduleCommand(join(folder.path, name), role, separators, memoryBytes),
    env: {},
    signal: new AbortController().signal,
    silenceMs: 0,
    limits: { ...UNLIMITED, memoryBytes, outputBytes },
    log,
    onOutput: async (chunk) => {
      output.push(Buffer.from(chunk));
    },
    ...options,
  });
  return {
    script,
    log,
    folder: folder.path,
    bytes: () => Buffer.concat(output),
    [Symbol.asyncDispose]: async () => {
      script.kill();
      await script.ended.catch(() => undefined);
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Runs a module from its first to its last line. */
async function run(
  role: ModuleRole,
  code: string,
  input: string | Uint8Array | Iterable<Uint8Array>,
  extra: Extra = {},
) {
  await using module = await start(role, code, extra);
  const { script, log } = module;
  const whole = typeof input === "string" ? Buffer.from(input) : input;
  for (const chunk of whole instanceof Uint8Array ? [whole] : whole)
    if (!(await script.write(chunk))) break;
  script.endInput();
  const end = await script.ended;
  const bytes = module.bytes();
  return { end, log, bytes, text: bytes.toString(), unread: script.inputUnread };
}

const FINE = { code: 0, signal: null, over: undefined };

async function outputOf(...args: Parameters<typeof run>): Promise<string> {
  const { end, log, text, unread } = await run(...args);
  assert.deepEqual([end, unread, log.toString()], [FINE, false, ""]);
  return text;
}

describe("a module's functions", () => {
  const roles = async (text: string, path = "a.ts") =>
    [...(await moduleRoles(path, text))].sort().join();

  it("are found by their exports, without running it", async () => {
    const all = "combine,map,reduce";
    const cases: [text: string, roles: string][] = [
      ["export function map(line: string, emit: Emit): void {}", "map"],
      ["export async function map() {}\nexport async function reduce() {}", "map,reduce"],
      ["export const map: MapFunction = (line, emit) => emit(line);", "map"],
      ["function f() {}\nexport { f as map, f as reduce, f as combine };", all],
      ["export const { map, r: reduce } = make<string>();", "map,reduce"],
      ['export { map, x as combine } from "./other.ts";', "combine,map"],
      ["#!/usr/bin/env node\nexport let other = 1, map = 2;", "map"],
      ["throw new Error('run');\nexport function map() {}", "map"],
      ["export type map = 1;\nexport interface reduce {}\nexport { type combine };", ""],
      ["export declare function map(): void;", ""],
      ["// export function map() {}\nconst s = `export function map() {}`;", ""],
      ["export default { map };\nmodule.exports = { map };", ""],
      ["export function map(line {", ""],
      ["export function mapper() {}", ""],
      ["#!/usr/bin/env python3\nfor line in it's: print('export function map() {}')", ""],
      ["", ""],
    ];
    for (const [text, expected] of cases) assert.equal(await roles(text), expected, text);
  });

  it("are looked for in files of JavaScript and TypeScript only", async () => {
    for (const [path, expected] of Object.entries({
      "x/a.js": "map",
      "a.mjs": "map",
      "a.mts": "map",
      "a.py": "",
      "a.cjs": "",
      ts: "",
    }))
      assert.equal(await roles("export const map = 1;", path), expected, path);
  });

  it("are found in a long text, or given up in time, and keep nobody else waiting", async () => {
    const long = `export const map = 1;\n${"// more\n".repeat(50_000)}`;
    assert.equal(await roles(long), "map");
    // The lexer would take minutes for it.
    const endless = "export const x = <".repeat(200_000);
    const [empty, { max }] = await Promise.all([roles(endless), blocked()]);
    assert.equal(empty, "");
    assert.ok(max < 5_000, `this thread stood still for ${max} ms`);
  });
});

/** The longest that this thread did nothing else, in the next second and a half. */
async function blocked(): Promise<{ max: number }> {
  let [max, last] = [0, performance.now()];
  for (const end = last + 1_500; last < end; ) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    max = Math.max(max, performance.now() - last);
    last = performance.now();
  }
  return { max };
}

describe("a mapper in a module", () => {
  it("is given each line and emits lines and pairs", async () => {
    const code = `
      export function map(line: string, emit: (key: string | number, value?: string | number) => void): void {
        emit(line);
        emit(line.length, 1.5);
        emit("", "");
      }`;
    const text = await outputOf("map", code, "one\n\n two\t2\nlast");
    const expected = ["one", "", " two\t2", "last"].map(
      (line) => `${line}\n${line.length}\t1.5\n\t\n`,
    );
    assert.equal(text, expected.join(""));
  });

  it("is not called without input", async () => {
    const code = "export function map() { throw new Error('called'); }";
    assert.equal(await outputOf("map", code, ""), "");
  });

  it("is given whole lines and characters, however the chunks are cut", async () => {
    const lines = [
      "слово",
      "𝄞 clef",
      "",
      "日本語のテキスト",
      "é".repeat(40_000),
      "x".repeat(100),
      "end",
    ];
    const input = Buffer.from(`${lines.join("\n")}\n`.repeat(3));
    const code = "export const map = (line, emit) => emit(line + '|', line);";
    const expected = lines.map((line) => `${line}|\t${line}\n`).join("");
    for (const size of [1, 7, 4_096, 30_000, input.length]) {
      const step = size === 1 ? 500 : input.length;
      const cut: Uint8Array[] = [];
      // One byte at a time only at the beginning: each is a message.
      for (let at = 0; at < step; at += size) cut.push(input.subarray(at, at + size));
      if (step < input.length) cut.push(input.subarray(step));
      assert.equal(await outputOf("map", code, cut), expected.repeat(3), `cut by ${size}`);
    }
  });

  it("has lines longer than what goes over at a time", async () => {
    const line = "0123456789abcdef".repeat(200_000);
    const code = "export const map = (line, emit) => emit(line, line.length);";
    assert.equal(
      await outputOf("map", code, `a\n${line}\nb\n`),
      `a\t1\n${line}\t${line.length}\nb\t1\n`,
    );
  });

  it("may be JavaScript, import what is beside it, and read it", async () => {
    const code = `
      import { readFileSync } from "node:fs";
      import { resolve } from "node:path";
      import { shout } from "./shout.ts";
      const suffix = readFileSync(new URL("suffix.txt", import.meta.url), "utf8");
      export const map = (line, emit) => emit(shout(line) + suffix, resolve("x").split("/").length);`;
    const files = {
      "shout.ts": "export const shout = (text: string): string => text.toUpperCase();",
      "suffix.txt": "!",
    };
    for (const name of ["code.js", "code.mjs", "code.mts"]) {
      await using module = await start("map", code, { files, name });
      await module.script.write(Buffer.from("a\n"));
      module.script.endInput();
      assert.deepEqual(await module.script.ended, FINE);
      assert.equal(module.bytes().toString(), `A!\t${module.folder.split("/").length + 1}\n`);
    }
  });

  it("may be asynchronous; its promises are awaited in order", async () => {
    const code = `
      import { setTimeout } from "node:timers/promises";
      export async function map(line: string, emit: (key: string) => void) {
        await setTimeout(Number(line));
        emit(line);
      }`;
    assert.equal(await outputOf("map", code, "20\n1\n10\n0\n"), "20\n1\n10\n0\n");
  });

  it("is not over before what it has left running", async () => {
    const code = `
      export function map(line, emit) { setTimeout(() => emit(line, "late"), 1); }
      let emitLast = () => undefined;
      process.on("exit", () => emitLast());
      export const keep = (emit) => { emitLast = emit; };`;
    assert.equal(await outputOf("map", code, "a\nb\n"), "a\tlate\nb\tlate\n");
    const atExit = "export function map(line, emit) { process.once('exit', () => emit(line)); }";
    assert.equal(await outputOf("map", atExit, "a\nb\n"), "a\nb\n");
  });

  it("is byte-true in latin1", async () => {
    const bytes = Array.from({ length: 256 }, (_, byte) => byte).filter(
      (b) => b !== 10 && b !== 13,
    );
    const input = Buffer.from([...bytes, 10, 255, 254, 10]);
    const code = `
      export const encoding = "latin1";
      export const map = (line, emit) => { emit(line); emit(line.length, line.repeat(2)); };`;
    const separators = { ...SEPARATORS, output: Buffer.from([0xc3, 0xa9, 0xff]) };
    const { end, bytes: output } = await run("map", code, input, { separators });
    assert.deepEqual(end, FINE);
    const pair = (count: string, line: number[]) =>
      Buffer.concat([
        Buffer.from([...line, 10]),
        Buffer.from(count),
        separators.output,
        Buffer.from([...line, ...line, 10]),
      ]);
    assert.deepEqual(output, Buffer.concat([pair("254", bytes), pair("2", [255, 254])]));
  });

  it("has the environment it was given, and no argument", async () => {
    const code = `
      export const map = (line, emit) =>
        emit(JSON.stringify([process.env, process.argv.slice(2), process.execArgv]));`;
    const env = { TMPDIR: "/x", some_name: "ä b" };
    assert.deepEqual(JSON.parse(await outputOf("map", code, "a\n", { env })), [env, [], []]);
  });

  it("counts on stderr and prints into the log", async () => {
    const code = `
      export function map(line: string): void {
        console.error("reporter:counter:group,lines,1");
        process.stderr.write("reporter:status:at " + line + "\\n");
        console.log("out %d", 1);
        process.stdout.write(Buffer.from("no line end"));
        process.stdout.write("\\n");
      }`;
    const { end, log, text } = await run("map", code, "a\nb\n");
    assert.deepEqual([end, text], [FINE, ""]);
    assert.deepEqual({ ...log.counters }, { "group,lines": 2 });
    assert.equal(log.status, "at b");
    assert.equal(log.toString(), "out 1\nno line end\n".repeat(2));
  });

  it("prints as much as it likes, and at once", async () => {
    const code = `
      export function map(line: string): void {
        for (let i = 0; i < 20_000; i += 1) console.error("reporter:counter:g,n,1");
        console.log("stuck");
        for (;;);
      }`;
    await using module = await start("map", code);
    await module.script.write(Buffer.from("a\n"));
    await until("its print", () => module.log.toString() === "stuck\n");
    assert.equal(module.log.counters["g,n"], 20_000);
  });

  it("takes a real example", async () => {
    assert.equal(typeof wordCount.map, "function");
    const path = join(import.meta.dirname, "../../examples/js_modules/word_count.ts");
    const code = readFileSync(path, "utf8");
    assert.deepEqual([...(await moduleRoles(path, code))].sort(), ["combine", "map", "reduce"]);
    const mapped = await outputOf("map", code, "It's a Café, a CAFÉ\n\n42 日本\n");
    const sorted = mapped.trimEnd().split("\n").sort();
    assert.equal(
      await outputOf("reduce", code, `${sorted.join("\n")}\n`),
      "42\t1\na\t2\ncafé\t2\nit\t1\ns\t1\n日本\t1\n",
    );
  });
});

describe("a reducer in a module", () => {
  const JOIN = "export const reduce = (key, values, emit) => emit(key, [...values].join('+'));";

  it("is called once for each run of equal keys", async () => {
    const input = "a\t1\na\t2\nab\t3\nb\nb\t\nb\t4\tx\na\t5\n\t6\n\n";
    assert.equal(await outputOf("reduce", JOIN, input), "a\t1+2\nab\t3\nb\t++4\tx\na\t5\n\t6+\n");
    assert.equal(await outputOf("reduce", JOIN, ""), "");
    const combine = JOIN.replace("reduce", "combine");
    assert.equal(await outputOf("combine", combine, "a\t1\na\t2"), "a\t1+2\n");
  });

  it("knows separators of several bytes and keys of several fields", async () => {
    const separators = { input: Buffer.from("→→"), keyFields: 2, output: Buffer.from(" é ") };
    const input = [
      ["x→→y→→1", "x→→y→→2→→3", "x→→yy→→4", "x→→→y→→5", "x", "x→→y", "x→→y→→6", "→→→→7"],
      "",
    ].flat();
    assert.equal(
      await outputOf("reduce", JOIN, input.join("\n"), { separators }),
      "x→→y é 1+2→→3\nx→→yy é 4\nx→→→y é 5\nx é \nx→→y é +6\n→→ é 7\n",
    );
    const latin1 = `${JOIN}\nexport const encoding = "latin1";`;
    const bytes = Buffer.from([0xff, 0xe9, 1, 10, 0xff, 0xe9, 0xe9, 10]);
    const oneByte = { ...SEPARATORS, input: Buffer.from([0xe9]) };
    const { bytes: output } = await run("reduce", latin1, bytes, { separators: oneByte });
    assert.deepEqual(output, Buffer.from([0xff, 9, 1, 43, 0xe9, 10]));
  });

  it("need not read its values, nor read them all, nor at once", async () => {
    const code = `
      let before = [];
      export async function reduce(key: string, values: Iterable<string>, emit: (...of: string[]) => void) {
        for (const stale of before) emit("stale", stale);
        before = values;
        if (key === "none") return emit(key);
        for (const value of values) {
          await null;
          emit(key, value);
          if (key === "one") return;
        }
        for (const value of values) emit("again", value);
      }`;
    const input = ["none", "one", "all", "none"].map((key) => `${key}\t1\n${key}\t2\n`).join("");
    assert.equal(await outputOf("reduce", code, input), "none\none\t1\nall\t1\nall\t2\nnone\n");
  });

  it("has groups of any size in little memory", async () => {
    const chunk = Buffer.from(`key\t${"v".repeat(95)}\n`.repeat(2_500));
    const times = 800;
    const code = `
      export function reduce(key, values, emit) {
        let count = 0;
        for (const value of values) count += value.length;
        emit(key, count);
      }`;
    const input = Array.from({ length: times }, () => chunk);
    const text = await outputOf("reduce", code, input, { memoryBytes: 150 * MB });
    assert.equal(text, `key\t${2_500 * 95 * times}\n`);
    const idle = "export function reduce(key, values, emit) { emit(key); }";
    assert.equal(await outputOf("reduce", idle, input, { memoryBytes: 150 * MB }), "key\n");
  });
});

describe("a module's failure", () => {
  const fails = async (code: string, extra: Extra & { role?: ModuleRole; input?: string } = {}) => {
    const { role = "map", input = "first\nsecond\nthird\n", ...options } = extra;
    const result = await run(role, code, input, options);
    return { ...result, said: result.log.toString() };
  };

  it("leaves a trace with its file and line, and what it had emitted", async () => {
    const code = `import { check } from "./check.ts";
      type Line = string;
      export function map(line: Line, emit: (line: Line) => void): void {
        emit(line);
        check(line);
      }`;
    const files = {
      "check.ts": `interface Nothing {}
        export function check(line: string): void {
          if (line === "second") throw new Error("bad line", { cause: new TypeError("why") });
        }`,
    };
    const { end, said, text } = await fails(code, { files });
    assert.deepEqual([end, text], [{ ...FINE, code: 1 }, "first\nsecond\n"]);
    assert.match(said, /^Error: bad line\n {4}at check \(check\.ts:3:\d+\)\n/);
    assert.match(said, /at (Module\.)?map \(code\.ts:5:\d+\)[\s\S]*cause\]: TypeError: why/);
    assert.doesNotMatch(said, /module_host|node:internal/);
  });

  it("is one in whatever way it comes", async () => {
    const cases: [code: string, said: RegExp][] = [
      [
        "export const map = async () => { throw new Error('async'); };",
        /^Error: async\n.*code\.ts/,
      ],
      ["export const map = () => { throw 'a string'; };", /^Uncaught 'a string'$/m],
      ["export const map = () => { throw null; };", /^Uncaught null$/m],
      ["export const map = () => void setTimeout(() => null.x, 1);", /TypeError.*\n.*code\.ts:1/],
      [
        "export const map = () => void Promise.reject(new Error('lost'));",
        /Error: lost\n.*code\.ts/,
      ],
      ["export const map = (line) => (function f() { f(); })();", /Maximum call stack/],
      ["export const map = 1;", /the module exports no function map/],
      ["export const map = () => 1, encoding = 'utf16';", /encoding is 'utf16'/],
      ["throw new Error('at once'); export function map() {}", /Error: at once\n.*code\.ts:1/],
      ["import './none.ts'; export function map() {}", /Cannot find module 'none\.ts'/],
      ["export function map() {\n  const a: = 1;\n}", /code\.ts:2\b[\s\S]*SyntaxError/],
      ["enum A { B }\nexport function map() {}", /enum is not supported/],
      [
        "export const map = (line, emit) => emit('a\\nb', 1);",
        /emitted key "a\\nb" has a line end/,
      ],
      [
        "export const map = (line, emit) => emit(1, 'é\\r');",
        /emitted value "é\\r" has a line end/,
      ],
      [
        `export const map = (line, emit) => emit(1, "${"x".repeat(300)}\\n");`,
        /emitted value "x{100}\.\.\." has a line end in it[^\n]*\n.*code\.ts:1/,
      ],
      [
        "export const map = (line, emit) => emit({ a: 1 });",
        /an emitted key is a .*, not \{ a: 1 \}/,
      ],
      ["export const map = (line, emit) => emit('a', null);", /an emitted value is a .*, not null/],
      [
        "export const map = (line, emit) => emit('€'), encoding = 'latin1';",
        /emitted key "€" has characters that are not latin1/,
      ],
    ];
    for (const [code, said] of cases) {
      const result = await fails(code);
      assert.deepEqual([result.end, result.text], [{ ...FINE, code: 1 }, ""], code);
      assert.match(result.said, said, code);
    }
  });

  it("is told where it is in JavaScript too, as far as Node knows", async () => {
    const { end, said } = await fails("export const map = ;", { name: "code.js" });
    assert.equal(end.code, 1);
    assert.match(said, /^node --check code\.js says where this is:\nSyntaxError: Unexpected token/);
  });

  it("of one record leaves no part of it, when the module goes on", async () => {
    const code = `
      export function map(line, emit) {
        try { emit(line, "a\\nb"); } catch { emit(line, "caught"); }
      }`;
    assert.equal(await outputOf("map", code, "a\nb\n"), "a\tcaught\nb\tcaught\n");
  });

  it("has the code it exits with", async () => {
    const code = `export function map(line, emit) {
      emit(line);
      console.log("leaving");
      if (line === "second") process.exit(3);
    }`;
    const { end, text, said } = await fails(code);
    assert.deepEqual([end, text], [{ ...FINE, code: 3 }, "first\nsecond\n"]);
    assert.equal(said, "leaving\nleaving\n");
    const last = await fails(code.replace("3", "0"), { input: "first\nsecond\n" });
    assert.deepEqual([last.end, last.unread], [FINE, false]);
    const later = await fails("export const map = () => { process.exitCode = 4; };");
    assert.deepEqual([later.end.code, later.unread], [4, false]);
  });

  it("is a promise that is never settled", async () => {
    const { end, said } = await fails("export const map = () => new Promise(() => undefined);");
    assert.equal(end.code, 13);
    assert.match(said, /promise that the module waits for is never settled/);
  });

  it("is known to who writes on", async () => {
    await using module = await start("map", "export const map = () => process.exit(0);");
    while (await module.script.write(Buffer.alloc(65_536, "x\n")));
    module.script.endInput();
    assert.deepEqual([await module.script.ended, module.script.inputUnread], [FINE, true]);
    assert.equal(await module.script.write(Buffer.from("more\n")), false);
  });

  it("may be that Node cannot be started", async () => {
    const env = { NODE_OPTIONS: "--no-such-option" };
    const { end, log } = await run("map", "export function map() {}", "a\n", { env });
    assert.deepEqual(end, { ...FINE, code: 9 });
    assert.match(log.toString(), /--no-such-option/);
  });

  it("is that its output cannot be taken", async () => {
    await using module = await start("map", "export const map = (line, emit) => emit(line);", {
      onOutput: async () => {
        throw new Error("disk full");
      },
    });
    while (await module.script.write(Buffer.alloc(65_536, "x\n")));
    await assert.rejects(module.script.ended, /disk full/);
  });
});

describe("a module is ended", () => {
  const KILLED = { code: null, signal: "SIGKILL" as const };
  const LOOP = "export function map() { console.log('begun'); for (;;); }";

  it("when nobody wants it any more, whatever it does", async () => {
    const cases = [
      LOOP,
      "console.log('begun'); for (;;); export function map() {}",
      "export async function map() { console.log('begun'); await new Promise((done) => setTimeout(done, 1e9)); }",
      "export function map() { console.log('begun'); /^(a+)+$/.test('a'.repeat(50) + 'b'); }",
      "export function map() { console.log('begun'); process.on('exit', () => { for (;;); }); process.exit(); }",
    ];
    for (const code of cases) {
      const stop = new AbortController();
      await using module = await start("map", code, { signal: stop.signal });
      await module.script.write(Buffer.from("a\n"));
      await until("its begin", () => module.log.toString() === "begun\n");
      if (code === LOOP) module.script.kill();
      else stop.abort();
      assert.deepEqual(await module.script.ended, { ...KILLED, over: undefined }, code);
      assert.equal(await module.script.write(Buffer.from("a\n")), false);
    }
  });

  it("even before it runs", async () => {
    await using module = await start("map", LOOP, { signal: AbortSignal.abort() });
    assert.deepEqual(await module.script.ended, { ...KILLED, over: undefined });
    assert.equal(module.log.toString(), "");
  });

  it("is not waited for when it is inside a system call", async () => {
    const code = `
      import { readFileSync } from "node:fs";
      export function map(line) { console.log("begun"); readFileSync(line); }`;
    await using module = await start("map", code);
    const pipe = join(module.folder, "pipe");
    await promisify(execFile)("mkfifo", [pipe]);
    await module.script.write(Buffer.from(`${pipe}\n`));
    await until("its begin", () => module.log.toString() === "begun\n");
    module.script.kill();
    const end = await module.script.ended;
    assert.deepEqual(end, { ...KILLED, over: undefined });
  });

  it("after silence", async () => {
    const cases = [
      LOOP,
      "for (;;); export function map() {}",
      "export const map = () => new Promise((done) => setTimeout(done, 1e9));",
      "export const map = () => void setTimeout(() => undefined, 1e9);",
    ];
    for (const code of cases) {
      const { end } = await run("map", code, "a\n", { silenceMs: 300 });
      const over = "it gave no sign of life for 0.3 s (the task timeout)";
      assert.deepEqual(end, { ...KILLED, over }, code);
    }
  });

  it("but not while it has no input, or nobody takes its output, or it is slow", async () => {
    const code = `
      export function map(line, emit) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(line));
        emit("x".repeat(200_000));
      }`;
    // Longer than the silence that is allowed, and seen by looking at the clock only.
    const pause = () => {
      const end = performance.now() + 600;
      return until("a pause", () => performance.now() > end);
    };
    let taken = 0;
    await using module = await start("map", code, {
      silenceMs: 400,
      onOutput: async () => {
        taken += 1;
        if (taken === 1) await pause();
      },
    });
    await pause();
    await module.script.write(Buffer.from("40\n".repeat(30)));
    // The last one stays in its buffer.
    await until("its output", () => taken === 29);
    await pause();
    module.script.endInput();
    assert.deepEqual(await module.script.ended, FINE);
  });

  it("when it takes too much memory, and this process goes on", async () => {
    const hoards = [
      "const all = []; for (;;) all.push({ a: [1, 2] });",
      "const all = new Map(); for (let i = 0; ; i += 1) all.set(i, i);",
      "const all = {}; for (let i = 0; ; i += 1) all['key' + i] = i;",
      "const all = []; for (;;) all.push('x'.repeat(50) + all.length);",
      "const all = []; for (;;) all.push(Buffer.alloc(100_000, 1));",
    ];
    for (const hoard of hoards) {
      const code = `export function map() { ${hoard} }`;
      const { end } = await run("map", code, "a\n", { memoryBytes: 100 * MB });
      // Node may have given up by itself before anybody looked.
      assert.ok(end.signal === "SIGKILL" || end.signal === "SIGABRT", `${end.signal}: ${hoard}`);
      assert.equal(end.over, "it took more than 100 MB of memory", hoard);
    }
  });

  it("when it emits or prints too much", async () => {
    const cases = {
      stdout: "export const map = (line, emit) => { for (;;) emit('x', 1); };",
      stderr: "export const map = () => { for (;;) console.log('x'.repeat(100)); };",
    };
    for (const [how, code] of Object.entries(cases)) {
      const { end } = await run("map", code, "a\n", { outputBytes: MB });
      assert.deepEqual(end, { ...KILLED, over: `it printed more than 1 MB on ${how}` });
    }
    const within = "export const map = (line, emit) => emit(line);";
    const input = `${"x".repeat(99)}\n`.repeat(10_000);
    assert.equal(await outputOf("map", within, input, { outputBytes: input.length }), input);
  });
});

describe("between a module and its worker", () => {
  it("output waits until it is taken", async () => {
    const line = "x".repeat(999);
    const code = `
      export function map(line, emit) {
        for (let i = 0; i < 400_000; i += 1) {
          emit("${line}");
          if (i % 1_000 === 0) console.error("reporter:status:" + i);
        }
      }`;
    const gate = Promise.withResolvers<void>();
    let bytes = 0;
    let peak = 0;
    const rss = process.memoryUsage.rss();
    await using module = await start("map", code, {
      onOutput: async (chunk) => {
        await gate.promise;
        await new Promise((resolve) => setImmediate(resolve));
        bytes += chunk.length;
        peak = Math.max(peak, process.memoryUsage.rss());
      },
    });
    await module.script.write(Buffer.from("a\n"));
    module.script.endInput();
    let before = "";
    await until("the module to wait", () => {
      const now = module.log.status;
      const still = now !== "" && now === before;
      before = now;
      return still;
    });
    assert.ok(Number(module.log.status) < 2_000, module.log.status);
    gate.resolve();
    assert.deepEqual(await module.script.ended, FINE);
    assert.equal(bytes, 400_000_000);
    assert.ok(peak - rss < 200 * MB, `${Math.round((peak - rss) / MB)} MB more`);
  });

  it("input waits until it is read", async () => {
    await using module = await start(
      "map",
      `import { existsSync } from "node:fs";
      const nap = new Int32Array(new SharedArrayBuffer(4));
      let lines = 0;
      export function map(line, emit) {
        lines += 1;
        while (!existsSync(new URL("go", import.meta.url))) Atomics.wait(nap, 0, 0, 5);
        if (line === "last") emit(lines);
      }`,
    );
    const { script } = module;
    let accepted = 0;
    const chunk = Buffer.from(`${"i".repeat(63)}\n`.repeat(1_000));
    const feeding = (async () => {
      for (let i = 0; i < 300; i += 1) {
        assert.equal(await script.write(chunk), true);
        accepted += chunk.length;
      }
      await script.write(Buffer.from("last\n"));
      script.endInput();
    })();
    let before = -1;
    await until("the feed to wait", () => {
      const still = accepted > 0 && accepted === before;
      before = accepted;
      return still;
    });
    assert.ok(accepted < 2 * MB, String(accepted));
    assert.equal(existsSync(join(module.folder, "go")), false);
    await writeFile(join(module.folder, "go"), "");
    await feeding;
    assert.deepEqual(await script.ended, FINE);
    assert.equal(module.bytes().toString(), "300001\n");
  });

  it("the chunk that was written may be used again", async () => {
    await using module = await start("map", "export const map = (line, emit) => emit(line);");
    const chunk = Buffer.alloc(4);
    for (let i = 100; i < 200; i += 1) {
      chunk.write(`${i}\n`);
      await module.script.write(chunk);
      chunk.fill("?");
    }
    module.script.endInput();
    assert.deepEqual(await module.script.ended, FINE);
    const expected = Array.from({ length: 100 }, (_, i) => `${i + 100}\n`).join("");
    assert.equal(module.bytes().toString(), expected);
  });
});
