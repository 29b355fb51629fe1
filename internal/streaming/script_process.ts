import type { Socket } from "node:net";
import { MrError, messageOf } from "../model/errors.ts";
import type { Command } from "./command.ts";
import { OutputPipe } from "./output_pipe.ts";
import {
  newNumber,
  openConnection,
  type RunnerAddress,
  RunnerRequest,
} from "./runner_connection.ts";
import type { Script, ScriptEnd } from "./script.ts";
import type { StderrLog } from "./stderr.ts";

/** What one run of a script may take; 0: any amount. */
export interface ScriptLimits {
  /** Of the script and all it started together, in bytes. */
  memoryBytes: number;
  processes: number;
  /** Of the script and all it started together, in seconds of processor time. */
  cpuSeconds: number;
  /** Of one file that it writes, in bytes. */
  fileBytes: number;
  /** Open at a time, in one process. */
  openFiles: number;
  /** Of stdout, and of stderr, in bytes. */
  outputBytes: number;
}

export const UNLIMITED: ScriptLimits = {
  memoryBytes: 0,
  processes: 0,
  cpuSeconds: 0,
  fileBytes: 0,
  openFiles: 0,
  outputBytes: 0,
};

/** A folder that is to become a script's `work`, with empty ones beside it: instead of all that was there. */
export interface ScriptLayout {
  work: string;
  temps: string[];
}

/** Where and how the runner starts a script. Paths are those that the runner sees. */
export interface ScriptPlace {
  /** A folder of the runner's, in which the script may write: by its name. */
  attempt: string;
  /** undefined: as it was left. */
  layout: ScriptLayout | undefined;
  cwd: string;
  /** Whether it may make connections. */
  network: boolean;
  /** What else it may read, and write. */
  reads: string[];
  writes: string[];
}

export interface ScriptOptions {
  runner: RunnerAddress;
  place: ScriptPlace;
  /** The first is a path. */
  argv: Command["argv"];
  absent?: Command["absent"];
  env: Record<string, string>;
  /** Kills the script and all it started. */
  signal: AbortSignal;
  /** Silence after which it is killed, in milliseconds; 0: never. */
  silenceMs: number;
  limits: ScriptLimits;
  log: StderrLog;
  /** Takes stdout; the script waits while this does. The chunk's memory is used again afterwards. */
  onOutput: (chunk: Buffer) => Promise<void>;
}

/** How often it is looked at, in milliseconds. */
const LOOK_MS = 200;

/** After exit, output that stragglers keep open is waited for this long. */
const STRAGGLER_MS = 1_000;

/**
 * One run of a user's script, which the runner starts and keeps to its limits: all that it started
 * is killed when it exits, so that nothing holds the slot. stdin, stdout and stderr are served
 * at the same time: no order of reads and writes in the script can deadlock it.
 */
export class ScriptProcess implements Script {
  readonly ended: Promise<ScriptEnd>;
  private readonly options: ScriptOptions;
  private readonly request: RunnerRequest;
  private readonly stdin: Socket;
  private readonly stderr: Socket;
  private readonly output: OutputPipe;
  private unread = false;
  /** Ends the waiting of a write. */
  private goOn: () => void = () => undefined;
  private inputEnded = false;
  private over: string | undefined;
  private readonly printed = { stdout: 0, stderr: 0 };
  private lastSignOfLifeMs = performance.now();

  constructor(options: ScriptOptions) {
    this.options = options;
    const { runner, argv, env, place, limits } = options;
    const { layout, ...where } = place;
    const number = newNumber();
    this.stdin = openConnection(runner, "stdin", number);
    // Reading would tell at once of input that was left in the pipe: on Hadoop nobody hears of that.
    this.stdin.pause();
    this.stdin.on("error", () => {
      this.unread = true;
    });
    this.output = new OutputPipe(
      (onread) => openConnection(runner, "stdout", number, onread),
      async (chunk) => {
        this.countOutput(chunk, "stdout");
        await options.onOutput(chunk);
      },
    );
    this.stderr = openConnection(runner, "stderr", number);
    this.stderr.on("error", () => undefined);
    this.request = new RunnerRequest(runner, number, {
      op: "run",
      ...where,
      layout: layout?.work ?? null,
      temps: layout?.temps ?? [],
      argv,
      env,
      limits,
    });
    this.ended = this.supervise();
    const goOn = () => this.goOn();
    this.ended.then(goOn, goOn);
  }

  async write(chunk: Uint8Array): Promise<boolean> {
    const { stdin } = this;
    if (chunk.length === 0) return true;
    if (this.unread || stdin.destroyed) {
      this.unread = true;
      return false;
    }
    // The stream calls back when all of it is in the pipe, or will never be. What waits for the script's end
    // is one for all writes: each of its own would keep its chunk until then.
    await new Promise<void>((resolve) => {
      this.goOn = resolve;
      stdin.write(chunk, () => resolve());
    });
    this.lastSignOfLifeMs = performance.now();
    return !this.unread && !stdin.destroyed;
  }

  endInput(): void {
    this.inputEnded = true;
    this.stdin.end();
  }

  kill(): void {
    this.request.say({ op: "kill" });
  }

  get inputUnread(): boolean {
    return this.unread;
  }

  private async supervise(): Promise<ScriptEnd> {
    const { request, options, stdin, stderr } = this;
    const kill = () => this.kill();
    options.signal.addEventListener("abort", kill, { once: true });
    if (options.signal.aborted) kill();
    const watchdog = setInterval(() => this.look(), LOOK_MS);
    try {
      const output = this.output.ended;
      const errors = this.drainErrors();
      output.catch(kill);
      // Where the runner is gone nobody waits for them any more.
      errors.catch(() => undefined);
      const end = await this.end();
      await this.untilDrained(Promise.all([output, errors]));
      options.log.end();
      if (stdin.writableLength > 0) this.unread = true;
      return { ...end, over: this.over ?? end.over };
    } finally {
      clearInterval(watchdog);
      options.signal.removeEventListener("abort", kill);
      stdin.destroy();
      stderr.destroy();
      this.output.giveUp();
      request[Symbol.dispose]();
    }
  }

  private async end(): Promise<ScriptEnd> {
    try {
      const { code, signal, over } = await this.request.next("ended");
      return { code, signal: signal as NodeJS.Signals | null, over: over ?? undefined };
    } catch (cause) {
      const { absent } = this.options;
      const isAbsent = MrError.is(cause, "not_found");
      if (isAbsent && absent !== undefined) throw absent();
      const message = `the script cannot be started: ${messageOf(cause)}`;
      throw isAbsent || MrError.is(cause, "user") ? new MrError("user", message, { cause }) : cause;
    }
  }

  private async drainErrors(): Promise<void> {
    for await (const chunk of this.stderr as AsyncIterable<Buffer>) {
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
        const { stderr } = this;
        if (idleMs < STRAGGLER_MS || stderr.readableLength > 0 || this.output.busy) return;
        this.output.giveUp();
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

  private look(): void {
    const { silenceMs } = this.options;
    // A script that waits for us, for input or to be rid of output, is not silent.
    const starved = !this.inputEnded && this.stdin.writableLength === 0;
    if (starved || this.output.busy) this.lastSignOfLifeMs = performance.now();
    if (silenceMs > 0 && performance.now() - this.lastSignOfLifeMs >= silenceMs)
      this.stopFor(`it gave no sign of life for ${silenceMs / 1_000} s (the task timeout)`);
  }

  private stopFor(limit: string): void {
    this.over ??= limit;
    this.kill();
  }
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1_048_576)} MB`;
}
