import type { MasterMessage, WorkerMessage } from "../../internal/model/session.ts";
import type { World } from "./world.ts";

/** A stream: messages arrive in order, late, or with a break not at all. */
export class Link {
  private readonly world: World;
  private lastMs = { up: 0, down: 0 };
  broken = false;
  toMaster: (message: WorkerMessage) => void = () => {};
  toWorker: (message: MasterMessage) => void = () => {};
  masterLost: () => void = () => {};
  workerLost: () => void = () => {};

  constructor(world: World) {
    this.world = world;
  }

  send(way: "up" | "down", repeatable: boolean, deliver: () => void): void {
    if (this.broken) return;
    const delayMs = this.world.chance(0.05)
      ? this.world.between(50, 1_500)
      : this.world.between(0, 10);
    const atMs = Math.max(this.lastMs[way], this.world.nowMs + delayMs);
    this.lastMs[way] = atMs;
    // Nothing repeats a message on a stream; the core must bear it all the same.
    const times = this.world.chance(0.02) && repeatable ? 2 : 1;
    this.world.after(atMs - this.world.nowMs, () => {
      for (let i = 0; i < times; i += 1) if (!this.broken) deliver();
    });
  }

  /** The worker's end, in good order: what it said arrives first, then the master sees the end. */
  close(): void {
    this.send("up", false, () => {
      this.broken = true;
      this.masterLost();
    });
  }

  /** Each side notices in its own time. */
  break(): void {
    if (this.broken) return;
    this.broken = true;
    this.world.after(this.world.between(0, 3_000), () => this.masterLost());
    this.world.after(this.world.between(0, 3_000), () => this.workerLost());
  }
}
