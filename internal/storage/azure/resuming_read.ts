import type { BlockBlobClient } from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import type { ReadOptions } from "../../model/object_store.ts";
import type { Patience } from "./patience.ts";

/**
 * Reads a range as one stream and, when the response stalls or breaks, goes on
 * where it ended. The SDK's own retries cover neither. Every request is pinned
 * to the version of the first, so that a resumed read never mixes two.
 *
 * @param idleMs no byte for this long: the response is taken for dead. Counts only
 *   while we wait for one.
 */
export async function* resumingRead(
  blob: BlockBlobClient,
  options: ReadOptions,
  patience: Patience,
  idleMs: number,
): AsyncIterable<Uint8Array> {
  let at = options.start ?? 0;
  const end = options.length === undefined ? Number.POSITIVE_INFINITY : at + options.length;
  let etag = options.etag;
  const retry = patience.begin(options.signal);
  while (at < end) {
    const stop = new AbortController();
    const within = idleGuard(stop, idleMs);
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
        retry.progress();
        yield next.value;
      }
      if (at >= expected) return;
      throw new MrError("unavailable", "storage: the response ended early");
    } catch (error) {
      await retry.after(error);
    } finally {
      stop.abort();
    }
  }
}

/** Makes a function that waits for one answer at a time, and stops all when none comes. */
function idleGuard(stop: AbortController, idleMs: number): <T>(work: Promise<T>) => Promise<T> {
  const stalled = new Promise<never>((_, reject) => {
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason), { once: true });
  });
  stalled.catch(() => undefined);
  return async (work) => {
    const timer = setTimeout(
      () => stop.abort(new MrError("unavailable", "storage: the response stalled")),
      idleMs,
    );
    try {
      return await Promise.race([work, stalled]);
    } finally {
      clearTimeout(timer);
    }
  };
}
