/**
 * An AbortController that also follows a signal, until it is let go. `AbortSignal.any` does the
 * same at five times the cost (25 us of CPU time, most of it the collector's), for every request.
 */
export class LinkedAbort {
  private readonly controller = new AbortController();
  private readonly leader: AbortSignal | undefined;
  private readonly follow = () => this.abort(this.leader?.reason);

  constructor(leader: AbortSignal | undefined) {
    this.leader = leader;
    if (leader?.aborted) this.follow();
    else leader?.addEventListener("abort", this.follow, { once: true });
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  abort(reason?: unknown): void {
    this.controller.abort(reason);
  }

  letGo(): void {
    this.leader?.removeEventListener("abort", this.follow);
  }
}
