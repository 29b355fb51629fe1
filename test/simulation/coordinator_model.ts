import type { RecordWrite } from "../../internal/model/coordinator.ts";
import type { History } from "./history.ts";
import type { World } from "./world.ts";

/** How long a leader's lease lasts, in ms of the fake clock. */
export const TTL_MS = 3_000;

/** What campaigns for leadership. */
export interface Candidate {
  readonly name: string;
}

/** etcd, or the SQLite file: leases, epochs, and commits that are fenced when they land. */
export class CoordinatorModel<M extends Candidate> {
  readonly records = new Map<string, string>();
  private readonly world: World;
  private readonly history: History;
  private epoch = 0;
  private holder: M | undefined;
  private deadlineMs = 0;
  /** Turned off by the mutation check. */
  fencing = true;

  constructor(world: World, history: History) {
    this.world = world;
    this.history = history;
  }

  leader(): M | undefined {
    return this.deadlineMs > this.world.nowMs ? this.holder : undefined;
  }

  tryElect(master: M): number | undefined {
    if (this.deadlineMs > this.world.nowMs) return undefined;
    this.holder = master;
    this.deadlineMs = this.world.nowMs + TTL_MS;
    this.epoch += 1;
    return this.epoch;
  }

  renew(epoch: number): boolean {
    if (epoch !== this.epoch || this.deadlineMs <= this.world.nowMs) return false;
    this.deadlineMs = this.world.nowMs + TTL_MS;
    return true;
  }

  resign(epoch: number): void {
    if (epoch === this.epoch) this.deadlineMs = this.world.nowMs;
  }

  /** False: fenced. */
  commit(epoch: number, writes: RecordWrite[]): boolean {
    if (this.fencing && (epoch !== this.epoch || this.deadlineMs <= this.world.nowMs)) return false;
    for (const { key, value } of writes) {
      this.history.recorded(key, value, writes);
      if (value === undefined) this.records.delete(key);
      else this.records.set(key, value);
    }
    return true;
  }
}
