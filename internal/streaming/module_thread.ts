import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import { MrError, messageOf } from "../model/errors.ts";
import type { ModuleRole } from "./module_exports.ts";
import type { FromModule, ModuleData, Separators, ToModule } from "./module_host.ts";
import type { Script, ScriptEnd } from "./script.ts";
import type { StderrLog } from "./stderr.ts";

export interface ModuleOptions {
  /** Of the module, absolute. */
  path: string;
  role: ModuleRole;
  /** What the paths in its traces are relative to. */
  cwd: string;
  /** The whole environment of the thread. */
  env: Record<string, string>;
  /** Ends the module. */
  signal: AbortSignal;
  /** Silence after which it is ended, in milliseconds; 0: never. */
  silenceMs: number;
  /** Of the thread's heap and buffers together, in bytes; 0: any amount. */
  memoryBytes: number;
  /** Of what it emits, and of what it prints, in bytes; 0: any amount. */
  outputBytes: number;
  separators: Separators;
  /** Takes what it prints, on stdout as on stderr. */
  log: StderrLog;
  /** Takes what it emits; the module waits while this does. */
  onOutput: (chunk: Buffer) => Promise<void>;
}

const HOST = new URL("./module_host.ts", import.meta.url);

/** How often the thread is looked at, in milliseconds. */
const LOOK_MS = 100;

/** Input goes over in pieces of this size, in bytes. */
const PIECE_BYTES = 256 * 1024;
/** Of input under way, in bytes: a write waits beyond. */
const INPUT_BYTES = 1024 * 1024;

/** A thread that is inside a system call ends only when that returns: not waited for longer. */
const STUCK_MS = 5_000;

/**
 * One run of a user's module in a thread of this process. The limits on time, memory
 * and output hold what is careless. A thread is no wall: the code in it can reach all
 * that the process can (files, descriptors, signals), processes that it starts are
 * neither counted nor ended, and one huge allocation takes the whole process with it.
 */
export class ModuleThread implements Script {
  readonly ended: Promise<ScriptEnd>;
  private readonly options: ModuleOptions;
  private readonly thread: Worker | undefined;
  private readonly port: MessagePort;
  private readonly shared = {
    posted: counter(),
    outputTaken: counter(),
    printsTaken: counter(),
    lines: counter(),
  };
  private readonly exited = Promise.withResolvers<number>();
  /** Resolves when input was taken, or the thread is gone; renewed each time. */
  private moved = Promise.withResolvers<void>();
  private gone = false;
  private killed = false;
  private stuck: NodeJS.Timeout | undefined;
  private over: string | undefined;
  private unread = false;
  private inputEnded = false;
  /** Bytes that the thread has not read to their end. */
  private inputOpen = 0;
  private outputs: Promise<void> = Promise.resolve();
  private outputsWaiting = 0;
  private readonly made = { emitted: 0, printed: 0 };
  private linesSeen = 0;
  private looking = false;
  private lastSignOfLifeMs = performance.now();

  constructor(options: ModuleOptions) {
    this.options = options;
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    try {
      this.thread = startThread(options, port2, this.shared);
    } catch (cause) {
      port1.close();
      this.gone = true;
      this.ended = Promise.reject(startError(cause));
      this.ended.catch(() => undefined);
      return;
    }
    this.ended = this.supervise(this.thread);
    this.ended.catch(() => undefined);
  }

  async write(chunk: Uint8Array): Promise<boolean> {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      if (this.gone) {
        this.unread = true;
        return false;
      }
      this.post(new Uint8Array(chunk.subarray(at, at + PIECE_BYTES)));
      while (!this.gone && this.inputOpen > INPUT_BYTES) await this.moved.promise;
    }
    return !this.gone || chunk.length === 0;
  }

  endInput(): void {
    this.inputEnded = true;
    this.post(undefined);
  }

  kill(): void {
    if (this.gone) return;
    this.killed = true;
    this.leave();
    void this.thread?.terminate();
    this.stuck = setTimeout(() => {
      this.thread?.unref();
      this.exited.resolve(1);
    }, STUCK_MS);
  }

  get inputUnread(): boolean {
    return this.unread;
  }

  /** A piece has its memory to itself, and goes over with it. */
  private post(message: ToModule): void {
    this.inputOpen += message?.length ?? 0;
    this.port.postMessage(message, message === undefined ? [] : [message.buffer]);
    Atomics.add(this.shared.posted, 0, 1);
    Atomics.notify(this.shared.posted, 0);
  }

  private async supervise(thread: Worker): Promise<ScriptEnd> {
    const { signal, log } = this.options;
    const kill = () => this.kill();
    this.listen(thread);
    signal.addEventListener("abort", kill, { once: true });
    if (signal.aborted) kill();
    const watch = setInterval(() => this.look(thread), LOOK_MS);
    try {
      const code = await this.exited.promise;
      clearInterval(watch);
      this.hearTheRest();
      await this.outputs;
      log.end();
      if (this.killed) return { code: null, signal: "SIGKILL", over: this.over };
      return { code, signal: null, over: undefined };
    } finally {
      clearInterval(watch);
      clearTimeout(this.stuck);
      signal.removeEventListener("abort", kill);
      this.port.close();
    }
  }

  private listen(thread: Worker): void {
    this.port.on("message", (message: FromModule) => this.hear(message));
    // Nearly all it prints comes by the port; this is what Node itself has to say.
    for (const stream of [thread.stdout, thread.stderr])
      stream.on("data", (chunk: Buffer) => this.print(chunk));
    thread.on("error", (error: unknown) => this.hearError(error));
    thread.once("exit", (code) => {
      this.leave();
      this.exited.resolve(code);
    });
  }

  /** It takes no more input. */
  private leave(): void {
    this.gone = true;
    this.moved.resolve();
  }

  /** What it sent before it ended. */
  private hearTheRest(): void {
    while (true) {
      const received: { message: FromModule } | undefined = receiveMessageOnPort(this.port);
      if (received === undefined) break;
      this.hear(received.message);
    }
    if (this.inputOpen > 0) this.unread = true;
  }

  private hear(message: FromModule): void {
    this.lastSignOfLifeMs = performance.now();
    if (message.kind === "emitted") return this.takeOutput(message.chunk);
    if (message.kind === "printed") {
      this.print(message.chunk);
      take(this.shared.printsTaken);
      return;
    }
    this.inputOpen -= message.bytes;
    this.moved.resolve();
    this.moved = Promise.withResolvers();
  }

  private takeOutput(chunk: Uint8Array<ArrayBuffer>): void {
    this.count(chunk, "emitted");
    this.outputsWaiting += 1;
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.outputs = this.outputs.then(async () => {
      // Nobody wants the output of what was killed.
      if (!this.killed) await this.options.onOutput(bytes);
      this.outputsWaiting -= 1;
      take(this.shared.outputTaken);
    });
    this.outputs.catch(() => this.kill());
  }

  private print(chunk: Uint8Array): void {
    this.count(chunk, "printed");
    this.options.log.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
  }

  private count(chunk: Uint8Array, how: "emitted" | "printed"): void {
    this.made[how] += chunk.length;
    const { outputBytes } = this.options;
    if (outputBytes > 0 && this.made[how] > outputBytes)
      this.stopFor(`it ${how} more than ${megabytes(outputBytes)}`);
  }

  /** Silence and memory: what only looking tells. */
  private look(thread: Worker): void {
    const { silenceMs, memoryBytes } = this.options;
    // A module that waits for us, for input or to be rid of output, is not silent.
    const starved = !this.inputEnded && this.inputOpen === 0;
    const lines = Atomics.load(this.shared.lines, 0);
    if (starved || this.outputsWaiting > 0 || lines !== this.linesSeen)
      this.lastSignOfLifeMs = performance.now();
    this.linesSeen = lines;
    if (silenceMs > 0 && performance.now() - this.lastSignOfLifeMs >= silenceMs)
      this.stopFor(`it gave no sign of life for ${silenceMs / 1_000} s (the task timeout)`);
    if (memoryBytes > 0) void this.lookAtMemory(thread);
  }

  private async lookAtMemory(thread: Worker): Promise<void> {
    if (this.looking) return;
    this.looking = true;
    const { memoryBytes } = this.options;
    try {
      const heap = await thread.getHeapStatistics();
      if (heap.used_heap_size + heap.external_memory > memoryBytes)
        this.stopFor(tooMuchMemory(memoryBytes));
    } catch {
      // Not there yet, or no more.
    } finally {
      this.looking = false;
    }
  }

  private hearError(error: unknown): void {
    const { code } = error instanceof Error && "code" in error ? error : { code: undefined };
    if (code === "ERR_WORKER_OUT_OF_MEMORY")
      return this.stopFor(tooMuchMemory(this.options.memoryBytes));
    if (code === "ERR_WORKER_INIT_FAILED") return this.exited.reject(startError(error));
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.options.log.push(Buffer.from(`${text}\n`));
  }

  private stopFor(limit: string): void {
    this.over ??= limit;
    this.killed = true;
    this.kill();
  }
}

function startThread(options: ModuleOptions, port: MessagePort, shared: ModuleData["shared"]) {
  const { path, role, cwd, env, memoryBytes } = options;
  const { input, keyFields, output } = options.separators;
  // Copies: a Buffer takes the whole pool that it was cut from along.
  const separators = { input: new Uint8Array(input), keyFields, output: new Uint8Array(output) };
  const workerData: ModuleData = { path, role, cwd, separators, port, shared };
  return new Worker(HOST, {
    name: "module",
    workerData,
    transferList: [port],
    env,
    argv: [],
    execArgv: [],
    stdout: true,
    stderr: true,
    trackUnmanagedFds: true,
    resourceLimits: memoryBytes > 0 ? { maxOldGenerationSizeMb: heapMegabytes(memoryBytes) } : {},
  });
}

function startError(cause: unknown): MrError {
  const exhausted = (cause as NodeJS.ErrnoException).code === "ERR_WORKER_INIT_FAILED";
  const message = `the module cannot be started: ${messageOf(cause)}`;
  return new MrError(exhausted ? "unavailable" : "user", message, { cause });
}

/**
 * V8's own limit is not the one that is to be reached: a table that doubles and finds no
 * room there ends the whole process. Before, the next look ends the thread.
 */
function heapMegabytes(memoryBytes: number): number {
  return Math.ceil((3 * memoryBytes) / 1_048_576) + 64;
}

function counter(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(4));
}

/** Wakes the thread if it waits for that. */
function take(taken: Int32Array): void {
  Atomics.add(taken, 0, 1);
  Atomics.notify(taken, 0);
}

function tooMuchMemory(bytes: number): string {
  return `it took more than ${bytes > 0 ? megabytes(bytes) : "a thread can have"} of memory`;
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1_048_576)} MB`;
}
