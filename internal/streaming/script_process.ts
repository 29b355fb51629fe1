import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { MrError, messageOf } from "../model/errors.ts";
import type { StderrLog } from "./stderr.ts";

export interface ScriptOptions {
  argv: string[];
  cwd: string;
  env: Record<string, string>;
  /** Kills the script and all it started. */
  signal: AbortSignal;
  /** Silence after which it is killed, in milliseconds; 0: never. */
  silenceMs: number;
  log: StderrLog;
  /** Takes stdout; the script waits while this does. */
  onOutput: (chunk: Buffer) => Promise<void>;
}

export interface ScriptEnd {
  code: number | null;
  signal: NodeJS.Signals | null;
  silent: boolean;
}

/**
 * Where the system has it: the kernel kills the script with the thread that started it, so that
 * it does not outlive a worker that was killed.
 */
const SETPRIV = "/usr/bin/setpriv";
const LEASH = existsSync(SETPRIV) ? [SETPRIV, "--pdeathsig", "KILL", "--"] : [];

/** After exit, output that stragglers keep open is waited for this long. */
const STRAGGLER_MS = 1_000;

/**
 * One run of a user's script. It leads a process group of its own, which is
 * killed when it exits, so that nothing it started holds the slot. stdin, stdout
 * and stderr are served at the same time: no order of reads and writes in the
 * script can deadlock it.
 */
export class ScriptProcess {
  readonly ended: Promise<ScriptEnd>;
  private readonly options: ScriptOptions;
  private readonly child: ChildProcessWithoutNullStreams;
  private unread = false;
  private inputEnded = false;
  private silent = false;
  private outputBusy = false;
  private reaped = false;
  private lastSignOfLifeMs = performance.now();

  constructor(options: ScriptOptions) {
    this.options = options;
    const [program = "", ...args] = [...LEASH, ...options.argv];
    this.child = spawn(program, args, {
      cwd: options.cwd,
      env: options.env,
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.child.stdin.on("error", () => {
      this.unread = true;
    });
    this.ended = this.supervise();
    this.ended.catch(() => undefined);
  }

  /** Resolves when the script (or the pipe) has taken the chunk; false: it reads no more. */
  async write(chunk: Uint8Array): Promise<boolean> {
    const { stdin } = this.child;
    if (chunk.length === 0) return true;
    if (this.unread || stdin.destroyed) {
      this.unread = true;
      return false;
    }
    if (!stdin.write(chunk)) {
      const gone = new AbortController();
      await Promise.race([
        once(stdin, "drain", { signal: gone.signal }),
        once(stdin, "close", { signal: gone.signal }),
        this.ended,
      ]).catch(() => undefined);
      gone.abort();
      this.lastSignOfLifeMs = performance.now();
    }
    return !this.unread && !stdin.destroyed;
  }

  endInput(): void {
    this.inputEnded = true;
    this.child.stdin.end();
  }

  /** Whether it ended before it had read all its input; known once all was offered to it. */
  get inputUnread(): boolean {
    return this.unread;
  }

  private async supervise(): Promise<ScriptEnd> {
    const { child, options } = this;
    const kill = () => this.killGroup();
    options.signal.addEventListener("abort", kill, { once: true });
    if (options.signal.aborted) kill();
    const watchdog = this.watchSilence();
    try {
      const output = this.drainOutput();
      const errors = this.drainErrors();
      output.catch(kill);
      const [code, signal] = await this.exit();
      this.killGroup();
      this.reaped = true;
      await this.untilDrained(Promise.all([output, errors]));
      options.log.end();
      if (child.stdin.writableLength > 0) this.unread = true;
      return { code, signal, silent: this.silent };
    } finally {
      clearInterval(watchdog);
      options.signal.removeEventListener("abort", kill);
      this.killGroup();
      child.stdin.destroy();
    }
  }

  private exit(): Promise<[number | null, NodeJS.Signals | null]> {
    return new Promise((resolve, reject) => {
      this.child.once("exit", (code, signal) => resolve([code, signal]));
      this.child.once("error", (error) =>
        reject(new MrError("user", `the script cannot be started: ${messageOf(error)}`)),
      );
    });
  }

  private async drainOutput(): Promise<void> {
    for await (const chunk of this.child.stdout as AsyncIterable<Buffer>) {
      this.lastSignOfLifeMs = performance.now();
      this.outputBusy = true;
      await this.options.onOutput(chunk);
      this.outputBusy = false;
    }
  }

  private async drainErrors(): Promise<void> {
    for await (const chunk of this.child.stderr as AsyncIterable<Buffer>) {
      this.lastSignOfLifeMs = performance.now();
      this.options.log.push(chunk);
    }
  }

  /** A process that left the group may hold the pipes for ever: give up once they are quiet. */
  private async untilDrained(drained: Promise<unknown>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const quiet = new Promise<void>((resolve) => {
      const startMs = performance.now();
      timer = setInterval(() => {
        const idleMs = performance.now() - Math.max(startMs, this.lastSignOfLifeMs);
        const { stdout, stderr } = this.child;
        const unread = stdout.readableLength > 0 || stderr.readableLength > 0;
        if (idleMs < STRAGGLER_MS || unread || this.outputBusy) return;
        stdout.destroy();
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

  private watchSilence(): NodeJS.Timeout | undefined {
    const { silenceMs } = this.options;
    if (silenceMs === 0) return undefined;
    return setInterval(
      () => {
        // A script that waits for us, for input or to be rid of output, is not silent.
        const starved = !this.inputEnded && this.child.stdin.writableLength === 0;
        if (starved || this.outputBusy) this.lastSignOfLifeMs = performance.now();
        if (performance.now() - this.lastSignOfLifeMs < silenceMs) return;
        this.silent = true;
        this.killGroup();
      },
      Math.min(1_000, silenceMs / 4),
    );
  }

  private killGroup(): void {
    const { pid } = this.child;
    // Once reaped, the number may become somebody else's.
    if (pid === undefined || this.reaped) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // All of it is gone.
    }
  }
}
