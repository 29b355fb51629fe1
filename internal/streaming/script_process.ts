import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { MrError, messageOf } from "../model/errors.ts";
import { OutputPipe } from "./output_pipe.ts";
import { ProcessTree, processes } from "./process_tree.ts";
import type { Script, ScriptEnd } from "./script.ts";
import type { StderrLog } from "./stderr.ts";

/** What one run of a script may take; 0: any amount. */
export interface ScriptLimits {
  /** Of the script and all it started together, in bytes. */
  memoryBytes: number;
  processes: number;
  /** Of stdout, and of stderr, in bytes. */
  outputBytes: number;
}

export interface ScriptOptions {
  argv: string[];
  cwd: string;
  env: Record<string, string>;
  /** Kills the script and all it started. */
  signal: AbortSignal;
  /** Silence after which it is killed, in milliseconds; 0: never. */
  silenceMs: number;
  limits: ScriptLimits;
  /** NAME=VALUE in `env` that no other script has. */
  mark: string;
  log: StderrLog;
  /** Takes stdout; the script waits while this does. The chunk's memory is used again afterwards. */
  onOutput: (chunk: Buffer) => Promise<void>;
}

/**
 * Where the system has it: the kernel kills the script with the thread that started it, so that
 * it does not outlive a worker that was killed.
 */
const SETPRIV = "/usr/bin/setpriv";
const LEASH = existsSync(SETPRIV) ? [SETPRIV, "--pdeathsig", "KILL", "--"] : [];

/** How often the script's processes are looked at, in milliseconds. */
const LOOK_MS = 200;

/** After exit, output that stragglers keep open is waited for this long. */
const STRAGGLER_MS = 1_000;

/**
 * One run of a user's script. All that it started is killed when it exits, so that
 * nothing holds the slot, and when it goes over a limit. stdin, stdout
 * and stderr are served at the same time: no order of reads and writes in the
 * script can deadlock it.
 */
export class ScriptProcess implements Script {
  readonly ended: Promise<ScriptEnd>;
  private readonly options: ScriptOptions;
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly tree: ProcessTree | undefined;
  /** Rejects when it could not be started. */
  private readonly failed: Promise<never>;
  private unread = false;
  private inputEnded = false;
  private over: string | undefined;
  private output: OutputPipe | undefined;
  private readonly printed = { stdout: 0, stderr: 0 };
  private lastSignOfLifeMs = performance.now();

  /** @throws MrError `user` for arguments or an environment that no process can be given. */
  constructor(options: ScriptOptions) {
    this.options = options;
    const [program = "", ...args] = [...LEASH, ...options.argv];
    const before = processes();
    try {
      this.child = spawn(program, args, {
        cwd: options.cwd,
        env: options.env,
        detached: true,
        stdio: ["pipe", "pipe", "pipe"],
      });
    } catch (error) {
      throw startError(error as NodeJS.ErrnoException);
    }
    // Before anything else: without a listener the error would end the whole slot.
    this.failed = new Promise((_, reject) => this.child.once("error", reject));
    this.failed.catch(() => undefined);
    const { pid } = this.child;
    if (pid === undefined) {
      this.ended = this.failed.catch((error) => Promise.reject(startError(error)));
      this.ended.catch(() => undefined);
      return;
    }
    this.tree = new ProcessTree(pid, options.mark, before);
    this.output = new OutputPipe(this.child.stdout, async (chunk) => {
      this.countOutput(chunk, "stdout");
      await options.onOutput(chunk);
    });
    this.child.stdin.on("error", () => {
      this.unread = true;
    });
    this.ended = this.supervise();
    this.ended.catch(() => undefined);
  }

  async write(chunk: Uint8Array): Promise<boolean> {
    const { stdin } = this.child;
    if (chunk.length === 0) return true;
    // Where no process could be made there are no pipes either.
    if (this.unread || stdin === undefined || stdin.destroyed) {
      this.unread = true;
      return false;
    }
    // The stream calls back when all of it is in the pipe, or will never be.
    const written = new Promise<void>((resolve) => stdin.write(chunk, () => resolve()));
    await Promise.race([written, this.ended.catch(() => undefined)]);
    this.lastSignOfLifeMs = performance.now();
    return !this.unread && !stdin.destroyed;
  }

  endInput(): void {
    this.inputEnded = true;
    this.child.stdin?.end();
  }

  kill(): void {
    this.tree?.killGroup();
  }

  get inputUnread(): boolean {
    return this.unread;
  }

  private async supervise(): Promise<ScriptEnd> {
    const { child, options } = this;
    const kill = () => this.tree?.killGroup();
    options.signal.addEventListener("abort", kill, { once: true });
    if (options.signal.aborted) kill();
    const watchdog = setInterval(() => this.look(), LOOK_MS);
    try {
      const output = this.output?.ended;
      const errors = this.drainErrors();
      output?.catch(kill);
      const [code, signal] = await this.exit();
      this.tree?.killAll();
      await this.untilDrained(Promise.all([output, errors]));
      options.log.end();
      if (child.stdin.writableLength > 0) this.unread = true;
      return { code, signal, over: this.over };
    } finally {
      clearInterval(watchdog);
      options.signal.removeEventListener("abort", kill);
      child.stdin.destroy();
    }
  }

  private exit(): Promise<[number | null, NodeJS.Signals | null]> {
    return Promise.race([
      new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
        this.child.once("exit", (code, signal) => resolve([code, signal]));
      }),
      this.failed,
    ]);
  }

  private async drainErrors(): Promise<void> {
    for await (const chunk of this.child.stderr as AsyncIterable<Buffer>) {
      this.countOutput(chunk, "stderr");
      this.options.log.push(chunk);
    }
  }

  private countOutput(chunk: Buffer, stream: "stdout" | "stderr"): void {
    this.lastSignOfLifeMs = performance.now();
    this.printed[stream] += chunk.length;
    const { outputBytes } = this.options.limits;
    if (outputBytes > 0 && this.printed[stream] > outputBytes)
      this.stopFor(`it printed more than ${megabytes(outputBytes)} on ${stream}`);
  }

  /** A process that left the group may hold the pipes for ever: give up once they are quiet. */
  private async untilDrained(drained: Promise<unknown>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const quiet = new Promise<void>((resolve) => {
      const startMs = performance.now();
      timer = setInterval(() => {
        const idleMs = performance.now() - Math.max(startMs, this.lastSignOfLifeMs);
        const { stderr } = this.child;
        if (idleMs < STRAGGLER_MS || stderr.readableLength > 0 || this.output?.busy) return;
        this.output?.giveUp();
        stderr.destroy();
        resolve();
      }, STRAGGLER_MS / 4);
    });
    try {
      await Promise.race([drained, quiet]);
    } finally {
      clearInterval(timer);
    }
  }

  /** Silence, processes, memory: what only looking tells. */
  private look(): void {
    const { silenceMs, limits } = this.options;
    // A script that waits for us, for input or to be rid of output, is not silent.
    const starved = !this.inputEnded && this.child.stdin.writableLength === 0;
    if (starved || this.output?.busy) this.lastSignOfLifeMs = performance.now();
    if (silenceMs > 0 && performance.now() - this.lastSignOfLifeMs >= silenceMs)
      this.stopFor(`it gave no sign of life for ${silenceMs / 1_000} s (the task timeout)`);
    if (this.tree === undefined || (limits.processes === 0 && limits.memoryBytes === 0)) return;
    const { processes: count, memoryBytes } = this.tree.look();
    if (limits.processes > 0 && count > limits.processes)
      this.stopFor(`it ran more than ${limits.processes} processes at a time`);
    // Pages shared between processes are counted more than once at first.
    const over = limits.memoryBytes > 0 && memoryBytes > limits.memoryBytes;
    if (over && this.tree.exactMemoryBytes() > limits.memoryBytes)
      this.stopFor(`it took more than ${megabytes(limits.memoryBytes)} of memory`);
  }

  private stopFor(limit: string): void {
    this.over ??= limit;
    this.tree?.killGroup();
  }
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1_048_576)} MB`;
}

/** No process, no memory, no descriptor left: this machine's trouble, not the script's. */
const EXHAUSTED = new Set(["EAGAIN", "ENOMEM", "EMFILE", "ENFILE"]);

function startError(error: NodeJS.ErrnoException): MrError {
  const code = EXHAUSTED.has(error.code ?? "") ? "unavailable" : "user";
  return new MrError(code, `the script cannot be started: ${messageOf(error)}`, { cause: error });
}
