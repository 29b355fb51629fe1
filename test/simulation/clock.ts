import type { World } from "./world.ts";

/** How much faster or slower than the world a clock may run. */
const DRIFT = 0.02;
const HOUR_MS = 3_600_000;
const EPOCH_MS = 1.7e12;

/**
 * What a process knows of time. Its monotonic clock begins anywhere and runs a
 * little fast or slow; its wall clock is set forward and back.
 */
export class Clock {
  private readonly world: World;
  private readonly rate: number;
  private readonly beganMs: number;
  private wallOffsetMs: number;

  constructor(world: World) {
    this.world = world;
    this.rate = 1 + DRIFT * (2 * world.random() - 1);
    this.beganMs = world.between(0, 1e9);
    this.wallOffsetMs = world.between(-5_000, 5_000);
  }

  get nowMs(): number {
    return this.beganMs + this.world.nowMs * this.rate;
  }

  get wallMs(): number {
    return EPOCH_MS + this.world.nowMs + this.wallOffsetMs;
  }

  /** What a timer of so many ms takes, in ms of the world. */
  timer(ownMs: number): number {
    return ownMs / this.rate;
  }

  jump(): void {
    this.wallOffsetMs += this.world.chance(0.5) ? HOUR_MS : -HOUR_MS;
  }
}
