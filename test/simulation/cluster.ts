import assert from "node:assert/strict";
import { submitJob } from "./client_model.ts";
import { CoordinatorModel } from "./coordinator_model.ts";
import { trouble } from "./faults.ts";
import { History } from "./history.ts";
import { MasterModel } from "./master_model.ts";
import type { Mutation } from "./mutations.ts";
import { whatIsLeft } from "./rest_check.ts";
import type { Scene } from "./scene.ts";
import { StorageModel } from "./storage_model.ts";
import { WorkerModel } from "./worker_model.ts";
import { World } from "./world.ts";

/** Faults happen until then; afterwards everything must come to rest. */
const FAULTS_MS = 60_000;
const REST_MS = 400_000;
const LOOK_MS = 1_000;
const LOG_LINES = 200;

/** A whole cluster on a fake clock: real scheduler, outbox, recovery and worker agent. */
export class SimulatedCluster {
  readonly history = new History();
  private readonly scene: Scene;
  private readonly masters: MasterModel[];
  private readonly workers: WorkerModel[] = [];

  constructor(seed: number, mutation: Mutation = {}) {
    const { history } = this;
    const world = new World(seed);
    const storage = new StorageModel(history);
    history.isThere = (object) => storage.objects.has(object) || storage.destroyed.has(object);
    const coordinator = new CoordinatorModel<MasterModel>(world, history, mutation);
    this.scene = { world, history, storage, coordinator, mutation };
    const names = ["master-1", "master-2", "master-3"];
    this.masters = names.map((name) => new MasterModel(name, this.scene));
    for (let i = world.between(2, 4); i > 0; i -= 1) this.hire();
    for (let i = world.between(1, 4); i > 0; i -= 1)
      world.after(world.between(0, 40_000), () => submitJob(this.scene));
    const workers = () => this.alive();
    trouble(this.scene, { masters: this.masters, workers, hire: () => this.hire() }, FAULTS_MS);
  }

  private hire(): void {
    this.workers.push(new WorkerModel(`worker-${this.workers.length + 1}`, this.scene));
  }

  private alive(): WorkerModel[] {
    return this.workers.filter(({ alive }) => alive);
  }

  /** @throws AssertionError with the seed and what happened, where an invariant broke. */
  run(): void {
    const { world } = this.scene;
    try {
      let lookMs = FAULTS_MS;
      while (world.step()) {
        if (world.nowMs < lookMs) continue;
        const left = whatIsLeft(this.scene, this.alive());
        if (left === undefined) return;
        assert.ok(world.nowMs < FAULTS_MS + REST_MS, `never comes to rest: there is ${left}`);
        lookMs = world.nowMs + LOOK_MS;
      }
    } catch (error) {
      const log = world.log.slice(-LOG_LINES).join("\n");
      (error as Error).message += `\n\nseed ${world.seed}; what happened:\n${log}`;
      throw error;
    }
  }
}
