import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { redacted } from "./redaction.ts";

const STDERR = 2;
/** Of lines that wait for a reader, or for room on the disk; those beyond are dropped. */
const WAITING_BYTES_MAX = 1024 * 1024;
const RETRY_MS_MIN = 20;
const RETRY_MS_MAX = 1_000;
const LOOK_MS = 10;
/** How long a process that ends waits for the reader of its log. */
const LAST_WORDS_MS = 1_000;

/**
 * Where lines for people go. Nobody waits for them: a disk that is full, a reader that is gone or
 * stands still costs lines, never the process. Their count is told where they are missing, as soon
 * as writing works again.
 */
export class LogOutput {
  private readonly fd: number;
  private readonly notice: (dropped: number) => string;
  private waiting: Buffer[] = [];
  private waitingBytes = 0;
  private dropped = 0;
  private retry: NodeJS.Timeout | undefined;
  private retryMs = RETRY_MS_MIN;

  /**
   * @param fd that answers at once: non-blocking, or a file.
   * @param notice the line that tells how many are missing.
   */
  constructor(fd: number, notice: (dropped: number) => string) {
    this.fd = fd;
    this.notice = notice;
  }

  write(line: string): void {
    if (this.retry !== undefined) return this.keep(line);
    const written = this.push(line);
    if (written === Buffer.byteLength(line)) return;
    if (written === 0) this.keep(line);
    else this.wait(Buffer.from(line).subarray(written));
    this.tryLater();
  }

  /** Lines stay in order: once one is dropped, all are, until the count of them is written. */
  private keep(line: string): void {
    const bytes = Buffer.from(line);
    if (this.dropped > 0 || this.waitingBytes + bytes.length > WAITING_BYTES_MAX) this.dropped += 1;
    else this.wait(bytes);
  }

  private wait(bytes: Buffer): void {
    this.waiting.push(bytes);
    this.waitingBytes += bytes.length;
  }

  /** @returns the bytes that were taken; whatever keeps the others out may pass. */
  private push(bytes: string | Buffer): number {
    try {
      return typeof bytes === "string" ? writeSync(this.fd, bytes) : writeSync(this.fd, bytes);
    } catch {
      return 0;
    }
  }

  private tryLater(): void {
    this.retry = setTimeout(() => {
      const before = this.waitingBytes;
      this.retry = undefined;
      const isDone = this.flush();
      this.retryMs =
        isDone || this.waitingBytes < before
          ? RETRY_MS_MIN
          : Math.min(RETRY_MS_MAX, this.retryMs * 2);
      if (!isDone) this.tryLater();
    }, this.retryMs).unref();
  }

  /** @returns whether nothing waits any more. */
  private flush(): boolean {
    if (!this.flushWaiting()) return false;
    if (this.dropped === 0) return true;
    this.wait(Buffer.from(this.notice(this.dropped)));
    this.dropped = 0;
    return this.flushWaiting();
  }

  private flushWaiting(): boolean {
    while (this.waiting.length > 0) {
      const [first = Buffer.alloc(0)] = this.waiting;
      const written = this.push(first);
      this.waitingBytes -= written;
      if (written < first.length) {
        this.waiting[0] = first.subarray(written);
        return false;
      }
      this.waiting.shift();
    }
    return true;
  }

  /** Before a process ends: resolves when all is written, or the time is over. */
  async drained(patienceMs: number): Promise<void> {
    const untilMs = performance.now() + patienceMs;
    while (!this.flush() && performance.now() < untilMs) await delay(LOOK_MS);
  }
}

let stderr: LogOutput | undefined;

/** Says a text, with its line end, on stderr, without the secrets that this process knows. */
export function say(text: string): void {
  stderr ??= new LogOutput(openStderr(), noticeOf);
  stderr.write(redacted(text));
}

/** Before a process ends: what it has said is read by then, or it has waited long enough. */
export async function allSaid(): Promise<void> {
  await stderr?.drained(LAST_WORDS_MS);
}

function noticeOf(dropped: number): string {
  const [level, time] = ["warn", new Date().toISOString()];
  const msg = "lines of this log could not be written";
  return `${JSON.stringify({ level, time, pid: process.pid, dropped, msg })}\n`;
}

/** @returns one that answers at once. */
function openStderr(): number {
  const stat = fstatSync(STDERR);
  if (stat.isFile()) return STDERR;
  try {
    // Opened anew, it is non-blocking for us only, not for those who share it: a shell, a runner.
    const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
    return openSync(`/proc/self/fd/${STDERR}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    // A socket, somebody else's pipe, no /proc: Node makes it non-blocking when it opens its stream.
    return process.stderr.fd;
  }
}
