import { MrError } from "../model/errors.ts";

/** What is smaller is not worth counting, in bytes. */
export const LARGE_BYTES = 1024 * 1024;

/** No amount of waiting would help. */
export class TooLarge extends MrError {
  constructor(bytesMax: number) {
    const most = `${Math.round(bytesMax / LARGE_BYTES)} MB`;
    super(
      "user",
      `its lines are too long: to merge them takes more than the ${most} that a slot of this worker has for that`,
    );
  }
}

/**
 * The memory of a slot for what long lines make large when runs are merged: a block that holds one is as long
 * as the line. Attempts of the slot share it, and wait for each other.
 */
export class LargeMemory {
  private readonly bytesMax: number;
  private held = 0;
  private readonly shares = new Set<LargeShare>();
  private wake: () => void = () => undefined;
  private changed = Promise.resolve();

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
    this.renew();
  }

  private renew(): void {
    this.changed = new Promise((resolve) => {
      this.wake = resolve;
    });
  }

  /** @throws TooLarge, or MrError `unavailable` where all others wait for us. */
  async take(share: LargeShare, bytes: number): Promise<void> {
    while (this.held + bytes > this.bytesMax) {
      share.signal?.throwIfAborted();
      if (share.held + bytes > this.bytesMax) throw new TooLarge(this.bytesMax);
      const others = [...this.shares].filter((each) => each !== share);
      if (share.held > 0 && others.every(({ waits }) => waits))
        throw new MrError("unavailable", "other tasks of this slot have the memory for long lines");
      share.waits += 1;
      await this.changed;
      share.waits -= 1;
    }
    this.held += bytes;
    share.held += bytes;
    this.shares.add(share);
  }

  give(share: LargeShare, bytes: number): void {
    this.held -= bytes;
    share.held -= bytes;
    if (share.held === 0) this.shares.delete(share);
    this.wakeAll();
  }

  private wakeAll(): void {
    this.wake();
    this.renew();
  }

  /** @param signal who waits for memory then waits no longer. */
  share(signal?: AbortSignal): LargeShare {
    signal?.addEventListener("abort", () => this.wakeAll(), { once: true });
    return new LargeShare(this, signal);
  }
}

/** What one attempt has of it. */
export class LargeShare {
  held = 0;
  /** How many of its streams wait for more. */
  waits = 0;
  readonly signal: AbortSignal | undefined;
  private readonly memory: LargeMemory;

  constructor(memory: LargeMemory, signal: AbortSignal | undefined) {
    this.memory = memory;
    this.signal = signal;
  }

  /** To be held until it is given back. Little is not counted. */
  hold(): LargeHold {
    return new LargeHold(this, this.memory);
  }
}

/** What one buffer takes. */
export class LargeHold implements Disposable {
  private bytes = 0;
  private readonly owner: LargeShare;
  private readonly memory: LargeMemory;

  constructor(owner: LargeShare, memory: LargeMemory) {
    this.owner = owner;
    this.memory = memory;
  }

  async add(bytes: number): Promise<void> {
    if (bytes < LARGE_BYTES) return;
    await this.memory.take(this.owner, bytes);
    this.bytes += bytes;
  }

  [Symbol.dispose](): void {
    if (this.bytes > 0) this.memory.give(this.owner, this.bytes);
    this.bytes = 0;
  }
}

/** Where nothing is counted. */
export const UNCOUNTED = new LargeMemory(Number.POSITIVE_INFINITY).share();
