import type { RecordWrite } from "../../internal/model/coordinator.ts";
import type { History } from "./history.ts";
import type { Mutation } from "./mutations.ts";
import type { World } from "./world.ts";

/** How long a leader's lease lasts, by the coordinator's clock. */
export const TTL_MS = 3_000;

export type Outcome = "done" | "fenced" | "unavailable";

/** etcd, or the SQLite file: leases, epochs, and commits that are fenced when they land. */
export class CoordinatorModel<M> {
  readonly records = new Map<string, string>();
  private readonly world: World;
  private readonly history: History;
  private readonly mutation: Mutation;
  private epoch = 0;
  /** Commits of this epoch that have landed. */
  private landed = 0;
  private holder: M | undefined;
  private deadlineMs = 0;
  /** Answers nobody until then. */
  private downUntilMs = 0;

  constructor(world: World, history: History, mutation: Mutation) {
    this.world = world;
    this.history = history;
    this.mutation = mutation;
  }

  private get down(): boolean {
    return this.world.nowMs < this.downUntilMs;
  }

  fail(forMs: number): void {
    this.downUntilMs = this.world.nowMs + forMs;
  }

  leader(): M | undefined {
    return this.deadlineMs > this.world.nowMs ? this.holder : undefined;
  }

  /** Whether no other can be elected yet. */
  holds(epoch: number): boolean {
    return epoch === this.epoch && this.deadlineMs > this.world.nowMs;
  }

  tryElect(master: M): number | undefined {
    if (this.down || this.deadlineMs > this.world.nowMs) return undefined;
    this.holder = master;
    this.deadlineMs = this.world.nowMs + TTL_MS;
    this.landed = 0;
    if (this.mutation.shell !== "epoch-reused" || this.epoch === 0) this.epoch += 1;
    this.history.seen.leaders += 1;
    return this.epoch;
  }

  renew(epoch: number): boolean {
    if (this.down || !this.holds(epoch)) return false;
    this.deadlineMs = this.world.nowMs + TTL_MS;
    return true;
  }

  resign(epoch: number): void {
    if (!this.down && epoch === this.epoch) this.deadlineMs = this.world.nowMs;
  }

  /** @param nth of this epoch: what comes twice, or late, changes nothing. */
  commit(epoch: number, nth: number, writes: RecordWrite[]): Outcome {
    if (this.down) return "unavailable";
    const { shell } = this.mutation;
    if (shell !== "no-fence") {
      if (!this.holds(epoch)) return "fenced";
      if (nth <= this.landed && shell !== "late-commits-land") return "done";
      this.landed = Math.max(this.landed, nth);
    }
    this.history.committed(writes);
    for (const { key, value } of writes) {
      if (value === undefined) this.records.delete(key);
      else this.records.set(key, value);
    }
    return "done";
  }
}
