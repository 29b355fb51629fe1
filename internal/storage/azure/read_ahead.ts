/** What the reads of one store hold together, in bytes. */
export class ReadBudget {
  readonly bytesMax: number;
  held = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }
}

/**
 * What came before its consumer asked for it. Its limit bounds it, or a single chunk where the
 * store's budget is spent: so every read goes on, however many there are.
 */
export class ReadAhead {
  private readonly limit: number;
  private readonly budget: ReadBudget;
  private chunks: Buffer[] = [];
  private first = 0;
  private end: { error?: unknown } | undefined;
  private wake: (() => void) | undefined;
  private whenRoom: (() => void) | undefined;
  private held = 0;

  constructor(limit: number, budget: ReadBudget) {
    this.limit = limit;
    this.budget = budget;
  }

  /** @returns whether there is room for more; if not, `room` is called when there is. */
  push(chunk: Buffer, room: () => void): boolean {
    if (this.end !== undefined) return true;
    this.chunks.push(chunk);
    this.hold(chunk.length);
    this.wake?.();
    if (this.held < this.limit && this.budget.held < this.budget.bytesMax) return true;
    this.whenRoom = room;
    return false;
  }

  /** Nothing more comes; @param error why, if it is not the end. */
  finish(error?: unknown): void {
    this.end ??= error === undefined ? {} : { error };
    this.wake?.();
  }

  private hold(bytes: number): void {
    this.held += bytes;
    this.budget.held += bytes;
  }

  /** What is there already. */
  takeNow(): Buffer | undefined {
    const chunk = this.chunks[this.first];
    if (chunk === undefined) return undefined;
    this.first += 1;
    if (this.first === this.chunks.length) [this.chunks, this.first] = [[], 0];
    this.hold(-chunk.length);
    // Not at once: to stop and start for every chunk costs more than it brings.
    const hasRoom = this.held <= this.limit / 2 && this.budget.held < this.budget.bytesMax;
    if (hasRoom || this.held === 0) {
      const { whenRoom } = this;
      this.whenRoom = undefined;
      whenRoom?.();
    }
    return chunk;
  }

  /** @returns undefined at the end. @throws what it failed with, after all that came before. */
  async next(): Promise<Buffer | undefined> {
    while (this.held === 0 && this.end === undefined)
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    const chunk = this.takeNow();
    if (chunk === undefined && this.end !== undefined && "error" in this.end) throw this.end.error;
    return chunk;
  }

  /** The consumer goes: nothing is held for it any longer. */
  drop(): void {
    this.finish();
    this.hold(-this.held);
    [this.chunks, this.first] = [[], 0];
  }
}
