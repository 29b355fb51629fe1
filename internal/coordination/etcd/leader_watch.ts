import type { Endpoints } from "./endpoints.ts";

const AGAIN_MS = 300;

/**
 * Hints that a key may have changed. It stands on one member, and goes to another when that one is
 * found to fail; what it missed meanwhile is one hint more.
 */
export class KeyWatch implements Disposable {
  private readonly endpoints: Endpoints;
  private readonly key: Buffer;
  private readonly hint: () => void;
  private closed = false;
  private stood = false;
  private leave: (() => void) | undefined;

  constructor(endpoints: Endpoints, key: string, hint: () => void) {
    this.endpoints = endpoints;
    this.key = Buffer.from(key);
    this.hint = hint;
    void this.open();
  }

  private async open(): Promise<void> {
    let left = false;
    const again = () => {
      if (left) return;
      left = true;
      this.leave?.();
      if (!this.closed) setTimeout(() => void this.open(), AGAIN_MS).unref();
    };
    try {
      await this.endpoints.login.ready();
      if (this.closed) return;
      const member = this.endpoints.best();
      const stream = await member.client.watchClient.watch();
      const failing = member.onFailure(again);
      this.leave = () => {
        left = true;
        failing[Symbol.dispose]();
        // Ended first: the library takes what it can write to for broken when it is cancelled.
        stream.end();
        stream.cancel();
      };
      stream.on("error", again).on("end", again);
      stream.on("data", ({ created, canceled, events }) => {
        if (left) return;
        if (canceled) return again();
        if (events.length > 0 || (created && this.stood)) this.hint();
        this.stood = true;
      });
      if (this.closed) return this.leave();
      stream.write({ create_request: { key: this.key } });
    } catch {
      again();
    }
  }

  [Symbol.dispose](): void {
    this.closed = true;
    this.leave?.();
  }
}
