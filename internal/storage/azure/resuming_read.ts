import type { Readable } from "node:stream";
import {
  type BlobDownloadResponseParsed,
  type BlockBlobClient,
  RestError,
} from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import { LinkedAbort } from "./linked_abort.ts";
import type { Patience } from "./patience.ts";
import type { ReadAhead } from "./read_ahead.ts";

/** What all requests of one read share. */
export interface ReadSource {
  readonly blob: BlockBlobClient;
  readonly patience: Patience;
  /** A response without a byte for this long, while we wait for one, is taken for dead. */
  readonly idleMs: number;
  readonly signal: AbortSignal;
  /** The version read; the first response says which, if the caller did not. */
  etag: string | undefined;
  /** Of the whole object, known from the first response. */
  size: number | undefined;
}

/** Its end is exclusive, Infinity for all there is; it may come nearer while the range is read. */
export interface Range {
  readonly start: number;
  end: number;
}

/**
 * Reads a range as one stream and, when the response stalls or breaks, goes on
 * where it ended. The SDK's own retries cover neither. Every request is pinned
 * to the version of the first, so that a resumed read never mixes two.
 */
export async function resumingRead(
  source: ReadSource,
  range: Range,
  into: ReadAhead,
): Promise<void> {
  const { containerName: container, name } = source.blob;
  const asked = { doing: "reading", container, name, withinMs: source.idleMs };
  const retry = source.patience.begin(asked, source.signal);
  let at = range.start;
  while (at < range.end) {
    const response = new Response(source);
    try {
      const asked = range.end;
      const body = await response.open(at, asked);
      await response.drain(body, (chunk, room) => {
        retry.progress();
        const wanted = chunk.subarray(0, Math.max(0, range.end - at));
        at += wanted.length;
        const hasRoom = wanted.length === 0 || into.push(wanted, room);
        // It was to bring more than is wanted now. Else its end is awaited, and the connection kept.
        if (at >= range.end && range.end < asked) return "enough";
        return hasRoom ? "more" : "wait";
      });
      if (at >= Math.min(range.end, source.size ?? range.end)) return;
      throw new Error("the response ended early");
    } catch (error) {
      // 416: the version is right, and the range starts at or beyond its end.
      if (error instanceof RestError && error.statusCode === 416) {
        if (source.size === undefined) return;
        throw new MrError("changed", `storage: ${container}/${name} became shorter`, {
          cause: error,
        });
      }
      await retry.after(error);
    } finally {
      response.end();
    }
  }
}

/** Made once: an error takes its stack with it. */
const LEFT = new MrError("aborted", "storage: the reader left");

/** One response, ended when it stalls, when its reader leaves or its caller gives up. */
class Response {
  private readonly source: ReadSource;
  private readonly stop: LinkedAbort;
  private readonly timer: NodeJS.Timeout;
  private waiting = true;
  private complete = false;

  constructor(source: ReadSource) {
    this.source = source;
    this.stop = new LinkedAbort(source.signal);
    this.timer = setTimeout(() => {
      // Not while the reader takes its time.
      if (this.waiting) this.stop.abort(new Error("the response stalled"));
    }, source.idleMs);
  }

  async open(at: number, end: number): Promise<Readable> {
    const { source } = this;
    this.stop.signal.throwIfAborted();
    source.patience.requests += 1;
    const found = await source.blob.download(at, Number.isFinite(end) ? end - at : undefined, {
      abortSignal: this.stop.signal,
      // The SDK's stream would ask again by itself, uncounted.
      maxRetryRequests: 0,
      ...(source.etag === undefined ? {} : { conditions: { ifMatch: `"${source.etag}"` } }),
    });
    const body = found.readableStreamBody as Readable | undefined;
    if (body === undefined) throw new Error("a response without body");
    // Without a listener, an error that comes while nobody reads would end the process.
    body.on("error", () => undefined);
    const range = rangeOf(found);
    if (range.start !== at) throw new Error("not the range asked for");
    source.etag ??= found.etag?.replaceAll('"', "");
    source.size ??= range.size;
    return body;
  }

  /** Resolves at the body's end, or when `take` has enough; it says when it has `room` again. */
  drain(
    body: Readable,
    take: (chunk: Buffer, room: () => void) => "more" | "wait" | "enough",
  ): Promise<void> {
    const goOn = () => {
      this.waiting = true;
      this.timer.refresh();
      body.resume();
    };
    return new Promise((resolve, reject) => {
      body.on("data", (chunk: Buffer) => {
        this.timer.refresh();
        const then = take(chunk, goOn);
        if (then === "more") return;
        this.waiting = false;
        body.pause();
        if (then === "enough") resolve();
      });
      body.once("end", () => {
        this.complete = true;
        resolve();
      });
      body.on("error", reject);
      body.once("close", () => {
        if (!this.complete) reject(new Error("the response broke off"));
      });
      const { signal } = this.stop;
      const leave = () => body.destroy(signal.reason as Error);
      if (signal.aborted) leave();
      else signal.addEventListener("abort", leave, { once: true });
    });
  }

  end(): void {
    clearTimeout(this.timer);
    this.stop.letGo();
    // Its connection goes with it, which one that has come to its end need not.
    if (!this.complete) this.stop.abort(LEFT);
  }
}

/** `bytes 0-99/1234`; without it, it is the whole. */
function rangeOf({ contentRange, contentLength = 0 }: BlobDownloadResponseParsed) {
  const match = /^bytes (\d+)-\d+\/(\d+)$/.exec(contentRange ?? "");
  if (match === null) return { start: 0, size: contentLength };
  return { start: Number(match[1]), size: Number(match[2]) };
}
