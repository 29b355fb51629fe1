/** An unbounded queue between a callback world and one `for await` reader. */
export class AsyncQueue<T> implements AsyncIterable<T> {
  private items: T[] = [];
  private wake: (() => void) | undefined;
  private closed = false;
  private failure: unknown;

  push(item: T): void {
    if (this.closed) return;
    this.items.push(item);
    this.wake?.();
  }

  /** Ends the iteration after what was pushed; with an error, by throwing it. */
  close(failure?: unknown): void {
    if (this.closed) return;
    this.closed = true;
    this.failure = failure;
    this.wake?.();
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    let taken: T[] = [];
    let at = 0;
    const next = async (): Promise<IteratorResult<T>> => {
      while (true) {
        if (at < taken.length) return { value: taken[at++] as T, done: false };
        taken = this.items;
        this.items = [];
        at = 0;
        if (taken.length > 0) continue;
        if (this.closed) break;
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
        this.wake = undefined;
      }
      if (this.failure !== undefined) throw this.failure;
      return { value: undefined, done: true };
    };
    return { next };
  }
}
