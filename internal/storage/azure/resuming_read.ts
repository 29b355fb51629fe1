import { setTimeout as delay } from "node:timers/promises";
import { type BlockBlobClient, RestError } from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import type { ReadOptions } from "../../model/object_store.ts";

/** No byte for this long: the response is taken for dead. Counts only while we wait for one. */
const IDLE_MS = 15_000;
/** Tries in a row without a byte of progress. */
const TRIES_MAX = 8;

/**
 * Reads a range as one stream and, when the response stalls or breaks, goes on
 * where it ended. The SDK's own retries cover neither. Every request is pinned
 * to the version of the first, so that a resumed read never mixes two.
 */
export async function* resumingRead(
  blob: BlockBlobClient,
  options: ReadOptions,
): AsyncIterable<Uint8Array> {
  let at = options.start ?? 0;
  const end = options.length === undefined ? Number.POSITIVE_INFINITY : at + options.length;
  let etag = options.etag;
  let tries = 0;
  while (at < end) {
    const stop = new AbortController();
    const within = idleGuard(stop);
    const abortSignal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])]);
    try {
      const response = await within(
        blob.download(at, Number.isFinite(end) ? end - at : undefined, {
          abortSignal,
          ...(etag === undefined ? {} : { conditions: { ifMatch: `"${etag}"` } }),
        }),
      );
      etag ??= response.etag?.replaceAll('"', "");
      const expected = at + (response.contentLength ?? 0);
      const body = response.readableStreamBody;
      if (body === undefined) throw new MrError("unavailable", "storage: a response without body");
      const chunks = (body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
      while (true) {
        const next = await within(chunks.next());
        if (next.done === true) break;
        at += next.value.length;
        tries = 0;
        yield next.value;
      }
      if (at >= expected) return;
      throw new MrError("unavailable", "storage: the response ended early");
    } catch (error) {
      options.signal?.throwIfAborted();
      tries += 1;
      if (isFinal(error) || tries >= TRIES_MAX) throw error;
      await delay(Math.min(5_000, 100 * 2 ** tries) * (0.5 + Math.random()), undefined, {
        signal: options.signal,
      });
    } finally {
      stop.abort();
    }
  }
}

/** Errors that the same request would meet again. */
function isFinal(error: unknown): boolean {
  if (!(error instanceof RestError) || error.statusCode === undefined) return false;
  return error.statusCode < 500 && error.statusCode !== 408 && error.statusCode !== 429;
}

/** Makes a function that waits for one answer at a time, and stops all when none comes. */
function idleGuard(stop: AbortController): <T>(work: Promise<T>) => Promise<T> {
  const stalled = new Promise<never>((_, reject) => {
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason), { once: true });
  });
  stalled.catch(() => undefined);
  return async (work) => {
    const timer = setTimeout(
      () => stop.abort(new MrError("unavailable", "storage: the response stalled")),
      IDLE_MS,
    );
    try {
      return await Promise.race([work, stalled]);
    } finally {
      clearTimeout(timer);
    }
  };
}
