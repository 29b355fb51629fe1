import { Clock } from "./clock.ts";
import type { Scene } from "./scene.ts";

/** A process has its own clock, and may stand still, as under SIGSTOP: what arrives then waits. */
export abstract class ProcessModel {
  readonly name: string;
  readonly clock: Clock;
  protected readonly scene: Scene;
  private pausedUntilMs = 0;
  private waiting: (() => void)[] = [];
  private waking = false;

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

  private get asleep(): boolean {
    return this.scene.world.nowMs < this.pausedUntilMs;
  }

  /** Runs now, or in its turn when the pause ends; not at all if the process has died meanwhile. */
  whenAwake(work: () => void): void {
    if (!this.asleep && this.waiting.length === 0) return work();
    this.waiting.push(work);
    if (!this.waking) this.wakeLater();
  }

  private wakeLater(): void {
    const { world } = this.scene;
    this.waking = true;
    world.after(Math.max(0, this.pausedUntilMs - world.nowMs), () => {
      while (!this.asleep && this.waiting.length > 0) this.waiting.shift()?.();
      this.waking = false;
      if (this.waiting.length > 0) this.wakeLater();
    });
  }

  /** It has died; another may come up in its place. */
  protected forget(): void {
    this.waiting = [];
    this.pausedUntilMs = 0;
  }
}
