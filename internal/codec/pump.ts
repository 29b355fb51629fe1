import type { Transform } from "node:stream";

/** A compressor or decompressor of node:zlib. */
export type ZlibStream = Transform & { readonly bytesWritten: number };

/**
 * Drives a zlib stream by hand: what goes in comes out before more goes in, so that nothing
 * piles up on either side, and how much of a chunk was consumed is known.
 */
export class Pump {
  private readonly stream: ZlibStream;
  private failure: unknown;
  private ended = false;
  private wake: () => void = () => undefined;

  constructor(stream: ZlibStream) {
    this.stream = stream;
    stream.on("readable", () => this.wake());
    stream.on("close", () => this.wake());
    stream.on("end", () => {
      this.ended = true;
      this.wake();
    });
    stream.on("error", (error) => this.fail(error));
  }

  /** How many bytes it has taken so far: fewer than were pushed when its format ended before them. */
  get consumed(): number {
    return this.stream.bytesWritten;
  }

  /** Yields what comes of a chunk; to be run to its end before the next call. */
  push(chunk: Uint8Array): AsyncGenerator<Uint8Array> {
    let taken = false;
    this.stream.write(chunk, (error) => {
      taken = true;
      if (error) this.fail(error);
      this.wake();
    });
    return this.outputUntil(() => taken);
  }

  /** Yields what was still held back. */
  end(): AsyncGenerator<Uint8Array> {
    this.stream.end();
    return this.outputUntil(() => this.ended);
  }

  destroy(): void {
    this.stream.destroy();
  }

  private fail(error: unknown): void {
    this.failure ??= error;
    this.wake();
  }

  private async *outputUntil(isDone: () => boolean): AsyncGenerator<Uint8Array> {
    while (true) {
      const changed = new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      const done = isDone();
      for (let out = this.stream.read(); out !== null; out = this.stream.read()) yield out;
      if (this.failure !== undefined) throw this.failure;
      if (done) return;
      // It may have ended, and closed itself, while its output was being taken.
      if (isDone()) continue;
      if (this.stream.destroyed) throw new Error("it was abandoned");
      await changed;
    }
  }
}
