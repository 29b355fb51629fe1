import { readSync, writeSync } from "node:fs";
import { basename, dirname } from "node:path";
import { Writable } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import type { ModuleRole } from "./module_exports.ts";

/**
 * The program that a module runs in: node module_host.ts MODULE_DATA, as JSON. Lines come on stdin, what is
 * emitted goes to stdout, and what is printed to stderr. All is synchronous, for speed and so that a
 * group's values are a plain iterable: the process sleeps while it waits for the other side.
 */

/** How a line is cut into key and value, and how the two are put together. */
export interface Separators {
  /** Between key and value of a reducer's input line. */
  input: Uint8Array;
  /** The key ends before this separator, counted from 1; without it the line is the key. */
  keyFields: number;
  /** Written between an emitted key and its value. */
  output: Uint8Array;
}

/** Texts are in base64: they may be any bytes. */
export interface ModuleData {
  path: string;
  role: ModuleRole;
  separators: { input: string; keyFields: number; output: string };
}

type Encoding = "utf8" | "latin1";
type Emit = (key: unknown, value?: unknown) => void;

const LF = 10;
const CR = 13;

/** Decoded at a time: a line that the module keeps keeps all of its block in memory. */
const BLOCK_BYTES = 16 * 1024;
const OUTPUT_BYTES = 128 * 1024;
const PIECE_BYTES = 256 * 1024;
/** What a slow module has emitted goes out after so long, in milliseconds: it is a sign of life. */
const HELD_MS = 1_000;
/** Lines between two looks at the clock. */
const LINES_A_LOOK = 8;
/** Longer texts are encoded by Node, shorter ones faster here. */
const SHORT_CHARS = 48;
/** What Node itself ends with when something awaited never comes. */
const UNSETTLED = 13;

const { path, role, separators: given } = JSON.parse(process.argv[2] ?? "{}") as ModuleData;
const separators: Separators = {
  input: Buffer.from(given.input, "base64"),
  keyFields: given.keyFields,
  output: Buffer.from(given.output, "base64"),
};

const nap = new Int32Array(new SharedArrayBuffer(4));

/** Node, or the module, may have opened a stream of its own there: then nothing waits for us. */
function patiently(transfer: () => number): number {
  while (true)
    try {
      return transfer();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Atomics.wait(nap, 0, 0, 1);
    }
}

function writeAll(file: number, chunk: Uint8Array): void {
  for (let at = 0; at < chunk.length; ) at += patiently(() => writeSync(file, chunk, at));
}

/** What is printed goes out at once, whatever the module does next: a stream of Node's own would wait for a turn. */
class Prints extends Writable {
  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    writeAll(2, chunk);
    done();
  }
}

/** The lines of the input. */
class Input {
  /** Pieces begun so far. */
  pieces = 0;
  private readonly encoding: Encoding;
  /** Whole lines; the next one begins at `at`. */
  private block = "";
  private at = 0;
  private lines = 0;
  private readonly memory = Buffer.allocUnsafeSlow(PIECE_BYTES);
  private piece: Buffer = Buffer.alloc(0);
  private pieceAt = 0;
  private ended = false;
  private readonly onLines: () => void;

  /** @param onLines is called now and then, before a line is given. */
  constructor(encoding: Encoding, onLines: () => void) {
    this.encoding = encoding;
    this.onLines = onLines;
  }

  /** The next line without its LF; undefined at the end. */
  next(): string | undefined {
    if (this.at === this.block.length && !this.fill()) return undefined;
    const end = this.block.indexOf("\n", this.at);
    const line = this.block.slice(this.at, end);
    this.at = end + 1;
    this.lines = (this.lines + 1) | 0;
    if (this.lines % LINES_A_LOOK === 0) this.onLines();
    return line;
  }

  /** The next lines into the block; false at the end. */
  private fill(): boolean {
    this.block = "";
    this.at = 0;
    const begun: Buffer[] = [];
    while (true) {
      const end = begun.length === 0 ? this.blockEnd() : this.piece.indexOf(LF, this.pieceAt) + 1;
      const part = this.piece.subarray(this.pieceAt, end > 0 ? end : undefined);
      this.pieceAt += part.length;
      if (end > 0) {
        const bytes = begun.length === 0 ? part : Buffer.concat([...begun, part]);
        this.block = bytes.toString(this.encoding);
        return true;
      }
      // The line's end is in a later piece, which takes the place of this one.
      if (part.length > 0) begun.push(Buffer.from(part));
      if (this.nextPiece()) continue;
      if (begun.length === 0) return false;
      this.block = `${Buffer.concat(begun).toString(this.encoding)}\n`;
      return true;
    }
  }

  /** Where the last line ends that fits into a block, or the one that is longer; 0: in no place. */
  private blockEnd(): number {
    const limit = this.pieceAt + BLOCK_BYTES;
    const last = this.piece.subarray(this.pieceAt, limit).lastIndexOf(LF);
    return last >= 0 ? this.pieceAt + last + 1 : this.piece.indexOf(LF, limit) + 1;
  }

  /** False at the end of the input. */
  private nextPiece(): boolean {
    if (this.ended) return false;
    // While we wait for input, nobody should wait for what we have.
    this.onLines();
    const bytes = patiently(() => readSync(0, this.memory));
    this.ended = bytes === 0;
    this.piece = this.memory.subarray(0, bytes);
    this.pieceAt = 0;
    this.pieces += 1;
    return !this.ended;
  }
}

/** Runs of lines with equal keys. */
class Groups {
  private readonly input: Input;
  private readonly separator: string;
  private readonly keyFields: number;
  private key = "";
  /** What every line with this key begins with that has a value. */
  private prefix: string | undefined;
  /** The first value of the group, or of the next one when this is over. */
  private first: string | undefined;
  private over = true;

  constructor(input: Input, encoding: Encoding) {
    this.input = input;
    this.separator = Buffer.from(separators.input).toString(encoding);
    this.keyFields = separators.keyFields;
  }

  /** The next group's key; what is left of this group is skipped. */
  nextKey(): string | undefined {
    while (!this.over) this.nextValue();
    if (this.first === undefined) {
      const line = this.input.next();
      if (line === undefined) return undefined;
      this.begin(line, this.keyEnd(line));
    }
    this.over = false;
    return this.key;
  }

  /** The group's next value; undefined when it is over. */
  nextValue(): string | undefined {
    if (this.over) return undefined;
    const { first } = this;
    if (first !== undefined) {
      this.first = undefined;
      return first;
    }
    const line = this.input.next();
    if (line !== undefined) {
      const { prefix } = this;
      if (prefix !== undefined && line.startsWith(prefix)) return line.slice(prefix.length);
      const end = this.keyEnd(line);
      if (end === this.key.length && line.startsWith(this.key)) return this.valueOf(line, end);
      this.begin(line, end);
    }
    this.over = true;
    return undefined;
  }

  private begin(line: string, keyEnd: number): void {
    this.key = line.slice(0, keyEnd);
    this.first = this.valueOf(line, keyEnd);
    this.prefix = keyEnd < line.length ? this.key + this.separator : undefined;
  }

  private keyEnd(line: string): number {
    let end = line.indexOf(this.separator);
    for (let field = 1; field < this.keyFields && end >= 0; field += 1)
      end = line.indexOf(this.separator, end + this.separator.length);
    return end < 0 ? line.length : end;
  }

  private valueOf(line: string, keyEnd: number): string {
    return line.slice(keyEnd + this.separator.length);
  }
}

/** One group's values, read as they are asked for. */
class Values extends Iterator<string> {
  private groups: Groups | undefined;

  constructor(groups: Groups) {
    super();
    this.groups = groups;
  }

  override next(): IteratorResult<string> {
    const value = this.groups?.nextValue();
    return value === undefined ? { value: undefined, done: true } : { value, done: false };
  }

  /** Whoever kept it does not read the next group's. */
  close(): void {
    this.groups = undefined;
  }
}

/** The lines that the module emits. */
class Output {
  private readonly encoding: Encoding;
  private readonly plainMax: number;
  private bytes = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
  private filled = 0;
  private flushedMs = performance.now();
  private closing = false;

  constructor(encoding: Encoding) {
    this.encoding = encoding;
    this.plainMax = encoding === "latin1" ? 0xff : 0x7f;
  }

  readonly emit: Emit = (key, value) => {
    const keyText = textOf(key, "key");
    const valueText = value === undefined ? undefined : textOf(value, "value");
    const { output } = separators;
    const most = 3 * (keyText.length + (valueText?.length ?? 0)) + output.length + 1;
    if (this.filled + most > this.bytes.length) this.makeRoom(most);
    // Counted only when the record is whole: a wrong one leaves nothing behind.
    let at = this.put(keyText, this.filled, "key");
    if (valueText !== undefined) {
      for (let i = 0; i < output.length; i += 1, at += 1) this.bytes[at] = output[i] as number;
      at = this.put(valueText, at, "value");
    }
    this.bytes[at] = LF;
    this.filled = at + 1;
    if (this.closing) this.flush();
  };

  /** What was emitted is not held back for long. */
  readonly flushOld = (): void => {
    if (performance.now() - this.flushedMs >= HELD_MS) this.flush();
  };

  /** What is emitted from now on goes out at once. */
  close(): void {
    this.closing = true;
    this.flush();
  }

  /** @returns where the text ends that begins at `start`. */
  private put(text: string, start: number, what: string): number {
    if (text.length > SHORT_CHARS) return this.putLong(text, start, what);
    const { bytes, plainMax } = this;
    for (let i = 0; i < text.length; i += 1) {
      const code = text.charCodeAt(i);
      if (code > plainMax || code === LF || code === CR) return this.putWide(text, start, what);
      bytes[start + i] = code;
    }
    return start + text.length;
  }

  /** UTF-8 of up to three bytes a character. */
  private putWide(text: string, start: number, what: string): number {
    const { bytes } = this;
    if (this.encoding === "latin1") return this.putLong(text, start, what);
    let at = start;
    for (let i = 0; i < text.length; i += 1) {
      const code = text.charCodeAt(i);
      if (code < 0x80) {
        if (code === LF || code === CR) return this.putLong(text, start, what);
        bytes[at] = code;
        at += 1;
        continue;
      }
      if (code < 0x800) bytes[at] = 0xc0 | (code >> 6);
      else {
        // One half of a character beyond them.
        if (code >= 0xd800 && code < 0xe000) return this.putLong(text, start, what);
        bytes[at] = 0xe0 | (code >> 12);
        at += 1;
        bytes[at] = 0x80 | ((code >> 6) & 0x3f);
      }
      bytes[at + 1] = 0x80 | (code & 0x3f);
      at += 2;
    }
    return at;
  }

  private putLong(text: string, start: number, what: string): number {
    const shown = () => JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}...` : text);
    if (text.includes("\n") || text.includes("\r"))
      throw new Error(`the emitted ${what} ${shown()} has a line end in it, which ends the record`);
    if (this.encoding === "latin1" && /[\u0100-\uffff]/.test(text))
      throw new Error(`the emitted ${what} ${shown()} has characters that are not latin1`);
    return start + this.bytes.write(text, start, this.encoding);
  }

  private makeRoom(bytes: number): void {
    this.flush();
    if (bytes > this.bytes.length) this.bytes = Buffer.allocUnsafeSlow(bytes);
  }

  private flush(): void {
    this.flushedMs = performance.now();
    if (this.filled === 0) return;
    writeAll(1, this.bytes.subarray(0, this.filled));
    this.filled = 0;
    if (this.bytes.length > OUTPUT_BYTES) this.bytes = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
  }
}

function textOf(part: unknown, what: string): string {
  if (typeof part === "string") return part;
  if (typeof part === "number") return String(part);
  throw new TypeError(`an emitted ${what} is a string or a number, not ${inspect(part)}`);
}

function isPromise(result: unknown): result is PromiseLike<unknown> {
  return typeof result === "object" && result !== null && "then" in result;
}

async function runMap(map: (line: string, emit: Emit) => unknown, input: Input, emit: Emit) {
  let { pieces } = input;
  for (let line = input.next(); line !== undefined; line = input.next()) {
    const result = map(line, emit);
    if (isPromise(result)) await result;
    if (input.pieces === pieces) continue;
    // So that promises that nobody awaits, and timers, do not pile up.
    pieces = input.pieces;
    await turn();
  }
}

type Reduce = (key: string, values: Iterable<string>, emit: Emit) => unknown;

async function runReduce(reduce: Reduce, input: Input, groups: Groups, emit: Emit) {
  let { pieces } = input;
  for (let key = groups.nextKey(); key !== undefined; key = groups.nextKey()) {
    const values = new Values(groups);
    const result = reduce(key, values, emit);
    if (isPromise(result)) await result;
    values.close();
    if (input.pieces === pieces) continue;
    pieces = input.pieces;
    await turn();
  }
}

function encodingOf(name: unknown): Encoding {
  if (name === undefined || name === "utf8" || name === "utf-8") return "utf8";
  if (name === "latin1") return "latin1";
  throw new Error(`the module's encoding is ${inspect(name)}: utf8 or latin1 is expected`);
}

async function load(): Promise<Record<string, unknown>> {
  try {
    return await import(pathToFileURL(path).href);
  } catch (error) {
    // Node does not say where, of plain JavaScript.
    if (error instanceof SyntaxError && error.stack?.startsWith("SyntaxError:"))
      process.stderr.write(`node --check ${basename(path)} says where this is:\n`);
    throw error;
  }
}

async function run(): Promise<void> {
  const module = await load();
  const call = module[role];
  if (typeof call !== "function") throw new Error(`the module exports no function ${role}`);
  const encoding = encodingOf(module.encoding);
  const output = new Output(encoding);
  const input = new Input(encoding, output.flushOld);
  process.once("exit", () => output.close());
  if (role === "map") await runMap(call as never, input, output.emit);
  else await runReduce(call as never, input, new Groups(input, encoding), output.emit);
}

/** As Node would print it, without our own calls; the module's files relative to its directory. */
function traceOf(error: unknown): string {
  const own = [import.meta.url, "(node:", "at node:"];
  const lines = (error instanceof Error ? inspect(error) : `Uncaught ${inspect(error)}`)
    .split("\n")
    .filter((line) => !/^\s+at /.test(line) || !own.some((each) => line.includes(each)));
  const folders = [dirname(path), process.cwd()].flatMap((folder) => [
    pathToFileURL(folder).href,
    folder,
  ]);
  return folders.reduce((text, folder) => text.replaceAll(`${folder}/`, ""), lines.join("\n"));
}

function fail(error: unknown): never {
  process.stderr.write(`${traceOf(error)}\n`);
  process.exit(1);
}

process.argv.splice(1, 2, path);
process.execArgv.length = 0;
// The runner's mark: it is none of the job's.
// biome-ignore lint/style/noProcessEnv: this is a script, its environment no setting
delete process.env.MR_RUN;
// stdout is for what is emitted.
const prints = new Prints();
for (const name of ["stdout", "stderr"]) Object.defineProperty(process, name, { value: prints });
process.on("uncaughtException", (error) => {
  // The module may have a listener of its own.
  if (process.listenerCount("uncaughtException") === 1) fail(error);
});
let finished = false;
process.once("beforeExit", () => {
  if (finished) return;
  process.stderr.write("a promise that the module waits for is never settled\n");
  process.exit(UNSETTLED);
});
run().then(() => {
  finished = true;
}, fail);
