/**
 * What all peers together may have us hold, beside a little that each may have for the asking:
 * nobody who sends halves of messages, or reads no answers, fills the memory of others.
 */
export class ByteBudget {
  private readonly bytesMax: number;
  private held = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /** @param freeBytes what this peer may hold without asking. */
  open(freeBytes: number): ByteShare {
    return new ByteShare(freeBytes, (more) => {
      if (more > 0 && this.held + more > this.bytesMax) return false;
      this.held += more;
      return true;
    });
  }
}

export class ByteShare implements Disposable {
  private readonly freeBytes: number;
  private readonly take: (more: number) => boolean;
  private charged = 0;

  constructor(freeBytes: number, take: (more: number) => boolean) {
    this.freeBytes = freeBytes;
    this.take = take;
  }

  /** @returns false: so much is not to be had now. */
  holds(bytes: number): boolean {
    const charge = Math.max(0, bytes - this.freeBytes);
    if (charge === this.charged) return true;
    if (!this.take(charge - this.charged)) return false;
    this.charged = charge;
    return true;
  }

  [Symbol.dispose](): void {
    this.take(-this.charged);
    this.charged = 0;
  }
}
