import { join } from "node:path";
import { MrError } from "../model/errors.ts";
import { newNumber, type RunnerAddress, RunnerRequest } from "./runner_connection.ts";
import { type ScriptLimits, type ScriptPlace, ScriptProcess } from "./script_process.ts";
import { StderrLog } from "./stderr.ts";

export interface VirtualEnvOptions {
  runner: RunnerAddress;
  /** Of the next process. What relative paths in the requirements start from is its `cwd`. */
  place: () => ScriptPlace;
  /** Of what is to be in it, in hexadecimal: two that have the same are the same. */
  key: string;
  /** Path of a requirements file. */
  requirements: string;
  /** An executable. */
  python: string;
  /**
   * All that pip and what it starts get to know, but for one variable more by which the runner knows them.
   * When they are killed, what they had in its TMPDIR stays there.
   */
  env: Record<string, string>;
  /** Of each of its processes with all it starts: packages bring programs of their own, which build them. */
  limits: ScriptLimits;
  /** Ends it, and all it started. */
  signal: AbortSignal;
  /** For all of it, in milliseconds. */
  timeoutMs: number;
  /** Takes what venv and pip print, without line ends. */
  onOutput: (line: string) => void;
}

/** A Python virtual environment, in use until it is disposed. */
export interface VirtualEnv extends Disposable {
  /** Where the runner has it. It cannot be moved: its programs name it. */
  folder: string;
}

/**
 * A Python virtual environment with what a requirements file asks for: made once for all scripts of a
 * runner. When it cannot be made, nothing of it is left, and the next who asks tries again.
 * @throws MrError `user` with the last that was printed when the requirements cannot be
 * installed (an index that cannot be reached is not told from one that has no such package),
 * when it goes over a limit, when the time is up, or when python cannot make environments; `aborted` by the signal.
 */
export async function virtualEnv(options: VirtualEnvOptions): Promise<VirtualEnv> {
  const { runner, key, signal } = options;
  const request = new RunnerRequest(runner, newNumber(), { op: "environment", key });
  const leave = () => request[Symbol.dispose]();
  signal.addEventListener("abort", leave, { once: true });
  try {
    abortIf(signal);
    const { event, path } = await request.next("build", "ready");
    if (event === "build") {
      await build(options, path);
      request.say({ op: "built" });
    }
    return { folder: path, [Symbol.dispose]: leave };
  } catch (error) {
    leave();
    abortIf(signal);
    throw error;
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

async function build(options: VirtualEnvOptions, into: string): Promise<void> {
  const timeout = AbortSignal.timeout(options.timeoutMs);
  const signal = AbortSignal.any([options.signal, timeout]);
  try {
    await makeEnvironment(options, into, signal);
    await install(options, into, signal);
  } catch (error) {
    throw options.signal.aborted || !timeout.aborted ? error : timeoutError(options.timeoutMs);
  }
}

/** `-I`: a user's file of the name of a module (random.py) is not what venv and pip import. */
const ISOLATED = "-I";

async function makeEnvironment(
  options: VirtualEnvOptions,
  into: string,
  signal: AbortSignal,
): Promise<void> {
  const argv = [options.python, ISOLATED, "-m", "venv", into];
  const { ok, said, over } = await run(options, into, argv, signal);
  if (ok) return;
  if (over !== undefined) throw overLimit("made", over, said);
  const why = NO_VENV.test(said)
    ? "this worker's python3 has no venv module (on Debian: python3-venv)"
    : `python3 -m venv failed:\n${said}`;
  throw new MrError("user", `the virtual environment cannot be made: ${why}`);
}

const NO_VENV = /No module named '?(venv|ensurepip)|ensurepip is not available/;

async function install(
  options: VirtualEnvOptions,
  into: string,
  signal: AbortSignal,
): Promise<void> {
  const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input"];
  const python = join(into, "bin", "python");
  const argv = [python, ISOLATED, ...pip, "-r", options.requirements];
  const { ok, said, over } = await run(options, into, argv, signal);
  if (over !== undefined) throw overLimit("filled", over, said);
  if (!ok) throw new MrError("user", `the requirements cannot be installed:\n${said}`);
}

interface Run {
  ok: boolean;
  /** The limit that it was ended for. */
  over: string | undefined;
  /** The last it printed. */
  said: string;
}

async function run(
  options: VirtualEnvOptions,
  into: string,
  argv: string[],
  signal: AbortSignal,
): Promise<Run> {
  abortIf(signal);
  const lines = new LastLines(options.onOutput);
  const child = new ScriptProcess({
    runner: options.runner,
    place: { ...options.place(), writes: [into] },
    // What went wrong is told on either; in the order in which it was said.
    argv: ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", ...argv],
    env: options.env,
    signal,
    silenceMs: 0,
    limits: options.limits,
    log: new StderrLog(),
    onOutput: async (chunk) => lines.push(chunk),
  });
  child.endInput();
  const { code, over } = await child.ended;
  lines.end();
  abortIf(signal);
  return { ok: code === 0, over, said: lines.said };
}

function abortIf(signal: AbortSignal): void {
  if (signal.aborted)
    throw new MrError("aborted", "the virtual environment was given up", { cause: signal.reason });
}

function overLimit(what: string, over: string, said: string): MrError {
  return new MrError("user", `the virtual environment cannot be ${what}: ${over}\n${said}`);
}

function timeoutError(timeoutMs: number): MrError {
  return new MrError("user", `the requirements were not installed within ${timeoutMs / 1_000} s`);
}

const SAID_CHARS_MAX = 2_000;
const LINE_CHARS_MAX = 4_000;

class LastLines {
  private readonly onLine: (line: string) => void;
  private readonly decoder = new TextDecoder();
  private open = "";
  private afterCr = false;
  private last = "";

  constructor(onLine: (line: string) => void) {
    this.onLine = onLine;
  }

  /** The last lines, as many as fit. */
  get said(): string {
    if (this.last.length <= SAID_CHARS_MAX) return this.last.trimEnd();
    const from = this.last.length - SAID_CHARS_MAX;
    const lineStart = this.last.indexOf("\n", from) + 1;
    const whole = lineStart > 0 && lineStart < this.last.length;
    return this.last.slice(whole ? lineStart : from).trimEnd();
  }

  push(chunk: Uint8Array): void {
    this.take(this.decoder.decode(chunk, { stream: true }));
  }

  end(): void {
    this.take(this.decoder.decode());
    if (this.open !== "") this.line(this.open);
    this.open = "";
  }

  private take(chunk: string): void {
    if (chunk === "") return;
    // A line end that was cut in two is still one.
    const text = this.afterCr && chunk.startsWith("\n") ? chunk.slice(1) : chunk;
    this.afterCr = chunk.endsWith("\r");
    const lines = (this.open + text).split(/\r?\n|\r/);
    this.open = lines.pop() ?? "";
    for (const line of lines) this.line(line);
    // It may never end.
    this.open = this.open.slice(0, LINE_CHARS_MAX);
  }

  /** Of one that is longer than any that matters, the beginning. */
  private line(whole: string): void {
    const line = whole.slice(0, LINE_CHARS_MAX);
    this.last = `${this.last}${line}\n`.slice(-2 * SAID_CHARS_MAX);
    this.onLine(line);
  }
}
