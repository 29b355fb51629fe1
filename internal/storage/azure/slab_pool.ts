/** A block is gathered in slabs of this size: a small object takes one, a large one no copy. */
export const SLAB_BYTES = 1024 * 1024;

/** Kept by a store that uploads nothing, for the next object. */
const KEPT_IDLE = 16;

/** The buffers of all uploads of one store, used again instead of left to the collector. */
export class SlabPool {
  private readonly most: number;
  private free: Buffer[] = [];
  private lent = 0;
  private lentMost = 0;

  /** @param bytesMax what uploads may hold together. */
  constructor(bytesMax: number) {
    this.most = Math.floor(bytesMax / SLAB_BYTES);
  }

  /** @param needed given in any case: else uploads would wait for each other. */
  take(needed: boolean): Buffer | undefined {
    if (!needed && this.lent >= this.most) return undefined;
    this.lent += 1;
    this.lentMost = Math.max(this.lentMost, this.lent);
    return this.free.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
  }

  /** @param clean nobody can be sending from them any more. */
  give(slabs: Buffer[], clean: boolean): void {
    this.lent -= slabs.length;
    const most = this.lent === 0 ? KEPT_IDLE : this.most - this.lent;
    if (clean) this.free.push(...slabs);
    if (this.free.length > most) this.free.length = Math.max(0, most);
  }

  get bytesLent(): number {
    return this.lent * SLAB_BYTES;
  }

  /** The most that was ever lent. */
  get bytesMost(): number {
    return this.lentMost * SLAB_BYTES;
  }
}
