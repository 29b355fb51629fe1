import assert from "node:assert/strict";
import { jobId } from "../../internal/model/ids.ts";
import { parseJobRequest } from "../../internal/model/job.ts";
import { CoordinatorModel } from "./coordinator_model.ts";
import { History } from "./history.ts";
import { MasterModel } from "./master_model.ts";
import { WorkerModel } from "./worker_model.ts";
import { World } from "./world.ts";

/** Faults happen until then; afterwards everything must come to rest. */
const FAULTS_MS = 60_000;
/** The longest that anything stands still, and a lease: by then late words have been said. */
const LATE_MS = 40_000;
const REST_MS = 400_000;

/** A deliberate mistake in the protocol, to see that the simulation would notice. */
export type Mutation = "none" | "no-fence" | "acknowledge-before-commit";

/** A whole cluster on a fake clock: real scheduler, outbox, recovery and worker agent. */
export class SimulatedCluster {
  readonly world: World;
  readonly history = new History();
  private readonly coordinator: CoordinatorModel<MasterModel>;
  private readonly masters: MasterModel[] = [];
  private workers: WorkerModel[] = [];
  private sessions = 0;
  private hired = 0;

  constructor(seed: number, mutation: Mutation = "none") {
    this.world = new World(seed);
    this.coordinator = new CoordinatorModel(this.world, this.history);
    this.coordinator.fencing = mutation !== "no-fence";
    for (const name of ["master-1", "master-2", "master-3"]) {
      const master = new MasterModel(name, this.world, this.history, this.coordinator);
      master.acknowledgeBeforeCommit = mutation === "acknowledge-before-commit";
      this.masters.push(master);
    }
    for (let i = this.world.between(2, 4); i > 0; i -= 1) this.hire();
    for (let i = this.world.between(1, 4); i > 0; i -= 1)
      this.world.after(this.world.between(0, 20_000), () => this.submit());
    this.trouble();
  }

  /** @throws AssertionError with the seed and what happened, where an invariant broke. */
  run(): void {
    try {
      while (this.world.nowMs < FAULTS_MS + REST_MS && this.world.step()) {
        if (this.world.nowMs > FAULTS_MS + LATE_MS && this.atRest()) break;
      }
      this.checkRest();
    } catch (error) {
      const { seed, log } = this.world;
      (error as Error).message += `\n\nseed ${seed}; what happened:\n${log.slice(-60).join("\n")}`;
      throw error;
    }
  }

  private hire(): void {
    this.hired += 1;
    const worker = new WorkerModel(`worker-${this.hired}`, this.world, this.history, {
      findLeader: () => this.coordinator.leader(),
      newSession: () => {
        this.sessions += 1;
        return this.sessions;
      },
    });
    this.workers.push(worker);
  }

  private submit(): void {
    const { world } = this;
    const spec = parseJobRequest({
      mapper: "m.py",
      reducer: "r.py",
      data: "text",
      m_num: world.between(1, 14),
      r_num: world.pick([0, 1, 3, 5]),
      ...(world.chance(0.15) && { phase: "map", r_num: 2 }),
      max_attempts: world.chance(0.1) ? 1 : 6,
    });
    const key = `key-${world.between(1, 1e9)}`;
    const name = () => jobId(1.7e12 + world.nowMs, String(world.between(100_000, 999_999)));
    let told = "";
    const attempt = () => {
      if (told !== "") return;
      this.coordinator.leader()?.submit(name(), spec, key, (job) => {
        assert.ok(told === "" || told === job, "one request made two jobs");
        told = job;
        world.note(`client is told of ${job}`);
        if (world.chance(0.1)) world.after(world.between(0, 20_000), () => this.cancel(job));
      });
      world.after(world.between(200, 3_000), attempt);
    };
    attempt();
  }

  private cancel(id: string): void {
    this.world.note(`cancel ${id}`);
    const leader = this.coordinator.leader();
    leader?.whenAwake(() => leader.post({ kind: "cancel", reply: 0, id }));
  }

  private trouble(): void {
    const { world } = this;
    world.after(world.between(500, 8_000), () => {
      if (world.nowMs >= FAULTS_MS) return;
      this.oneFault();
      this.trouble();
    });
  }

  private oneFault(): void {
    const { world } = this;
    const master = world.chance(0.7) ? this.coordinator.leader() : world.pick(this.masters);
    const worker = world.pick(this.workers.filter(({ alive }) => alive));
    const roll = world.random();
    if (roll < 0.2) master?.crash();
    else if (roll < 0.35 && master !== undefined) {
      world.note(`${master.name} stands still`);
      master.pausedUntilMs = world.nowMs + world.between(500, 12_000);
    } else if (roll < 0.45) master?.demote();
    else if (roll < 0.6) {
      worker?.crash();
      world.after(world.between(100, 5_000), () => this.hire());
    } else if (roll < 0.7 && worker !== undefined) {
      world.note(`${worker.name} stands still`);
      worker.pausedUntilMs = world.nowMs + world.between(500, 25_000);
    } else if (roll < 0.78) {
      worker?.leave();
      this.hire();
    } else {
      world.note(`${worker?.name} loses its stream`);
      worker?.link?.break();
    }
  }

  private atRest(): boolean {
    for (const job of this.history.accepted) if (!this.history.reports.has(job)) return false;
    // The leader has swept what there was to sweep.
    const left = [...this.coordinator.records.keys()].filter(
      (key) => key.startsWith("job/") && !key.endsWith("/report"),
    );
    return left.length === 0;
  }

  private checkRest(): void {
    assert.ok(this.atRest(), "something is still waiting long after the last fault");
    for (const [name, maker] of this.history.objects) {
      // Made after the sweep by a worker that stood still, and died before it could be told.
      if (!maker.alive) continue;
      const job = name.slice(0, name.indexOf("/"));
      const report = this.history.reports.get(job);
      const kept = report?.state === "succeeded" && report.record.spec.phase === "map";
      assert.ok(kept, `${name} was left behind`);
    }
    for (const [job, report] of this.history.reports)
      assert.equal(this.history.markers.has(job), report.state === "succeeded", `${job}: marker`);
  }
}
