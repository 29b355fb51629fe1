import type { OnReadOpts, Socket } from "node:net";

/** As much as a pipe may hold, and more than it does by default. */
const BUFFER_BYTES = 256 * 1024;
/** Reads are spaced out until they bring about so much. */
const WANTED_BYTES = 64 * 1024;
const NAP_MS_MAX = 5;
const IDLE_MAX = 8;

/** Buffers that wait for the next script of this thread. */
const idle: Buffer[] = [];

/**
 * Reads a script's stdout into one buffer that is used again and again: a stream's own chunks,
 * new ones for each read, keep the garbage collector busier than the data does us. Scripts print by
 * small pieces (Python by 8 KiB); reading each as it comes would wake us for each, and take
 * the processor from the script. So a busy pipe is left alone for some milliseconds at a time.
 */
export class OutputPipe {
  /** Resolves at the end of the output, or when it was given up; rejects with what `take` threw. */
  readonly ended: Promise<void>;
  /** The script waits for us to take what it has printed. */
  busy = false;
  private readonly socket: Socket;
  private readonly take: (chunk: Buffer) => Promise<void>;
  private readonly buffer = idle.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
  private napMs = 0;
  private waiting: NodeJS.Timeout | undefined;

  /**
   * @param open connects to the script's stdout, to be read as is said.
   * @param take is given the buffer's memory until it resolves.
   */
  constructor(open: (onread: OnReadOpts) => Socket, take: (chunk: Buffer) => Promise<void>) {
    this.take = take;
    const { buffer } = this;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const callback = (bytes: number) => {
      this.busy = true;
      this.taken(bytes).catch((error) => {
        this.socket.destroy();
        reject(error);
      });
      return false;
    };
    this.socket = open({ buffer, callback });
    this.socket.once("end", resolve);
    this.socket.once("error", reject);
    this.socket.once("close", () => {
      clearTimeout(this.waiting);
      resolve();
    });
    this.ended = promise.finally(() => {
      if (!this.busy && idle.length < IDLE_MAX) idle.push(buffer);
    });
    this.ended.catch(() => undefined);
    this.socket.resume();
  }

  private async taken(bytes: number): Promise<void> {
    await this.take(this.buffer.subarray(0, bytes));
    this.busy = false;
    // Less than half of what is wanted: a longer nap; more than half again as much: a shorter one.
    if (bytes < WANTED_BYTES / 2) this.napMs = Math.min(NAP_MS_MAX, this.napMs + 0.5);
    else if (bytes > WANTED_BYTES * 1.5) this.napMs = Math.max(0, this.napMs - 1);
    if (this.napMs < 1) this.socket.resume();
    else this.waiting = setTimeout(() => this.socket.resume(), this.napMs);
  }

  /** What is still to come is not wanted. */
  giveUp(): void {
    this.socket.destroy();
  }
}
