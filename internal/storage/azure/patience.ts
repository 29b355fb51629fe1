import { setTimeout as delay } from "node:timers/promises";
import { MrError } from "../../model/errors.ts";
import { type Asked, type Service, storageError } from "./answers.ts";
import { LinkedAbort } from "./linked_abort.ts";

/** One try of a request may take this long, in milliseconds: a block at 280 KB/s. */
const TRY_MS = 60_000;
const WAIT_MS_MIN = 100;
const WAIT_MS_MAX = 5_000;

/**
 * How long a failing storage is borne with. Every request is tried again, with
 * growing and jittered waits, until this much time has passed without success.
 */
export class Patience {
  private readonly patienceMs: number;
  private readonly service: Service;
  /** Requests sent so far: every try is one, since the SDK's own retries are off. */
  requests = 0;

  constructor(patienceMs: number, service: Service = {}) {
    this.patienceMs = patienceMs;
    this.service = service;
  }

  /** @throws MrError that names what was asked for */
  async call<T>(
    asked: Asked,
    body: (signal: AbortSignal) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const retry = this.begin({ ...asked, withinMs: TRY_MS }, signal);
    while (true) {
      if (signal?.aborted) throw new MrError("aborted", "storage: given up");
      const stop = new LinkedAbort(signal);
      const timer = setTimeout(() => stop.abort(), TRY_MS);
      this.requests += 1;
      try {
        return await body(stop.signal);
      } catch (error) {
        await retry.after(error);
      } finally {
        clearTimeout(timer);
        stop.letGo();
      }
    }
  }

  begin(asked: Asked, signal?: AbortSignal): Retry {
    return new Retry(this.patienceMs, (error) => storageError(error, asked, this.service), signal);
  }
}

/** The tries of one request, or of one stream that goes on where it broke. */
export class Retry {
  private readonly patienceMs: number;
  private readonly named: (error: unknown) => MrError;
  private readonly signal: AbortSignal | undefined;
  private tries = 0;
  private sinceMs = performance.now();

  constructor(
    patienceMs: number,
    named: (error: unknown) => MrError,
    signal: AbortSignal | undefined,
  ) {
    this.patienceMs = patienceMs;
    this.named = named;
    this.signal = signal;
  }

  /** It went on: patience begins anew. */
  progress(): void {
    this.tries = 0;
    this.sinceMs = performance.now();
  }

  /** Waits before the next try. @throws MrError when there is none. */
  async after(error: unknown): Promise<void> {
    if (this.signal?.aborted) throw new MrError("aborted", "storage: given up", { cause: error });
    const known = this.named(error);
    const spentMs = performance.now() - this.sinceMs;
    if (!known.retryable || spentMs >= this.patienceMs) throw known;
    this.tries += 1;
    const waitMs = Math.min(WAIT_MS_MAX, WAIT_MS_MIN * 2 ** Math.min(this.tries, 10));
    const options = this.signal === undefined ? {} : { signal: this.signal };
    await delay(waitMs * (0.5 + Math.random() / 2), undefined, options).catch(() => undefined);
    if (this.signal?.aborted) throw new MrError("aborted", "storage: given up", { cause: error });
  }
}
