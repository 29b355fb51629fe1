import { rm } from "node:fs/promises";
import { join } from "node:path";
import { MrError } from "../model/errors.ts";
import { ScriptProcess } from "./script_process.ts";
import { StderrLog } from "./stderr.ts";

export interface VirtualEnvOptions {
  /** Path of a requirements file. */
  requirements: string;
  /** What relative paths in it start from. */
  cwd: string;
  /** The folder to make, absolute. It cannot be moved afterwards: its programs name it. */
  into: string;
  /** An executable. */
  python: string;
  /**
   * All that pip and what it starts get to know, but for one variable more that marks them.
   * When they are killed, what they had in its TMPDIR stays there.
   */
  env: Record<string, string>;
  /** Ends it, and all it started. */
  signal: AbortSignal;
  /** For all of it, in milliseconds. */
  timeoutMs: number;
  /** Takes what venv and pip print, without line ends. */
  onOutput: (line: string) => void;
}

/**
 * Makes a Python virtual environment with what a requirements file asks for. When it cannot,
 * nothing of it is left.
 * @throws MrError `user` with the last that was printed when the requirements cannot be
 * installed (an index that cannot be reached is not told from one that has no such package),
 * when the time is up, or when python cannot make environments; `aborted` by the signal.
 */
export async function buildVirtualEnv(options: VirtualEnvOptions): Promise<void> {
  const timeout = AbortSignal.timeout(options.timeoutMs);
  const signal = AbortSignal.any([options.signal, timeout]);
  try {
    await makeEnvironment(options, signal);
    await install(options, signal);
  } catch (error) {
    await rm(options.into, { recursive: true, force: true, maxRetries: 5 });
    throw options.signal.aborted || !timeout.aborted ? error : timeoutError(options.timeoutMs);
  }
}

/** `-I`: a user's file of the name of a module (random.py) is not what venv and pip import. */
const ISOLATED = "-I";

async function makeEnvironment(options: VirtualEnvOptions, signal: AbortSignal): Promise<void> {
  const argv = [options.python, ISOLATED, "-m", "venv", options.into];
  const { ok, said } = await run(options, argv, signal);
  if (ok) return;
  const why = NO_VENV.test(said)
    ? "this worker's python3 has no venv module (on Debian: python3-venv)"
    : `python3 -m venv failed:\n${said}`;
  throw new MrError("user", `the virtual environment cannot be made: ${why}`);
}

const NO_VENV = /No module named '?(venv|ensurepip)|ensurepip is not available/;

async function install(options: VirtualEnvOptions, signal: AbortSignal): Promise<void> {
  const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input"];
  const python = join(options.into, "bin", "python");
  const argv = [python, ISOLATED, ...pip, "-r", options.requirements];
  const { ok, said } = await run(options, argv, signal);
  if (!ok) throw new MrError("user", `the requirements cannot be installed:\n${said}`);
}

interface Run {
  ok: boolean;
  /** The last it printed. */
  said: string;
}

async function run(options: VirtualEnvOptions, argv: string[], signal: AbortSignal): Promise<Run> {
  abortIf(signal);
  const mark = { MR_VIRTUAL_ENV: options.into };
  const lines = new LastLines(options.onOutput);
  const child = new ScriptProcess({
    // What went wrong is told on either; in the order in which it was said.
    argv: ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", ...argv],
    cwd: options.cwd,
    env: { ...options.env, ...mark },
    signal,
    silenceMs: 0,
    limits: { memoryBytes: 0, processes: 0, outputBytes: 0 },
    mark: `MR_VIRTUAL_ENV=${mark.MR_VIRTUAL_ENV}`,
    log: new StderrLog(),
    onOutput: async (chunk) => lines.push(chunk),
  });
  child.endInput();
  const { code } = await child.ended;
  lines.end();
  abortIf(signal);
  return { ok: code === 0, said: lines.said };
}

function abortIf(signal: AbortSignal): void {
  if (signal.aborted)
    throw new MrError("aborted", "the virtual environment was given up", { cause: signal.reason });
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
    // Of a line without end the beginning is kept, however it comes.
    this.open = this.open.slice(0, LINE_CHARS_MAX);
  }

  private line(line: string): void {
    this.last = `${this.last}${line}\n`.slice(-2 * SAID_CHARS_MAX);
    this.onLine(line);
  }
}
