import { Clock } from "./clock.ts";
import type { Scene } from "./scene.ts";

/** A process has its own clock, and may stand still, as under SIGSTOP: what arrives then waits. */
export abstract class ProcessModel {
  readonly name: string;
  readonly clock: Clock;
  protected readonly scene: Scene;
  private pausedUntilMs = 0;
  private waiting: (() => void)[] = [];

  constructor(name: string, scene: Scene) {
    this.name = name;
    this.scene = scene;
    this.clock = new Clock(scene.world);
  }

  standStill(forMs: number): void {
    const { world } = this.scene;
    world.note(`${this.name} stands still for ${forMs} ms`);
    this.pausedUntilMs = Math.max(this.pausedUntilMs, world.nowMs + forMs);
  }

  /** Runs now, or when the pause ends; not at all if the process has died meanwhile. */
  whenAwake(work: () => void): void {
    if (this.scene.world.nowMs >= this.pausedUntilMs) return work();
    this.waiting.push(work);
    if (this.waiting.length === 1) this.wakeLater();
  }

  private wakeLater(): void {
    const { world } = this.scene;
    world.after(this.pausedUntilMs - world.nowMs, () => {
      if (world.nowMs < this.pausedUntilMs) return this.wakeLater();
      const { waiting } = this;
      this.waiting = [];
      for (const work of waiting) this.whenAwake(work);
    });
  }

  /** It has died; another may come up in its place. */
  protected forget(): void {
    this.waiting = [];
    this.pausedUntilMs = 0;
  }
}
