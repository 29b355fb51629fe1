import { setTimeout as delay } from "node:timers/promises";
import { RestError } from "@azure/storage-blob";
import { MrError, messageOf } from "../../model/errors.ts";
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
  /** Requests sent so far: every try is one, since the SDK's own retries are off. */
  requests = 0;

  constructor(patienceMs: number) {
    this.patienceMs = patienceMs;
  }

  /** @throws MrError */
  async call<T>(body: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const retry = this.begin(signal);
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

  begin(signal?: AbortSignal): Retry {
    return new Retry(this.patienceMs, signal);
  }
}

/** The tries of one request, or of one stream that goes on where it broke. */
export class Retry {
  private readonly patienceMs: number;
  private readonly signal: AbortSignal | undefined;
  private tries = 0;
  private sinceMs = performance.now();

  constructor(patienceMs: number, signal: AbortSignal | undefined) {
    this.patienceMs = patienceMs;
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
    const known = storageError(error);
    const spentMs = performance.now() - this.sinceMs;
    if (!known.retryable || spentMs >= this.patienceMs) throw known;
    this.tries += 1;
    const waitMs = Math.min(WAIT_MS_MAX, WAIT_MS_MIN * 2 ** Math.min(this.tries, 10));
    const options = this.signal === undefined ? {} : { signal: this.signal };
    await delay(waitMs * (0.5 + Math.random() / 2), undefined, options).catch(() => undefined);
    if (this.signal?.aborted) throw new MrError("aborted", "storage: given up", { cause: error });
  }
}

export function storageError(error: unknown): MrError {
  if (error instanceof MrError) return error;
  if (error instanceof RestError) return restError(error);
  const { name } = error as Error;
  if (/Credential|Authentication/.test(name)) {
    const [first = ""] = messageOf(error).split("\n");
    return new MrError("unavailable", `storage: no identity to show: ${first}`, { cause: error });
  }
  if (name === "AbortError" || name === "TimeoutError")
    return new MrError("unavailable", "storage: no answer in time", { cause: error });
  return new MrError("unavailable", `storage: ${messageOf(error)}`, { cause: error });
}

function restError(error: RestError): MrError {
  const message = `storage: ${error.code ?? error.name}`;
  const { statusCode = 0 } = error;
  switch (statusCode) {
    case 404:
      return new MrError("not_found", message, { cause: error });
    case 412:
      return new MrError("changed", message, { cause: error });
    case 409:
      return new MrError("exists", message, { cause: error });
    case 401:
    case 403:
      return new MrError("internal", `${message}: access denied`, { cause: error });
    case 0:
      return new MrError("unavailable", `${message} (no answer)`, { cause: error });
    default: {
      // What is wrong with the request itself is wrong the next time too.
      const final = statusCode < 500 && statusCode !== 408 && statusCode !== 429;
      const code = final ? "internal" : "unavailable";
      return new MrError(code, `${message} (${statusCode})`, { cause: error });
    }
  }
}
