import { cancelJob } from "./client_model.ts";
import { loseOutput } from "./losses.ts";
import type { MasterModel } from "./master_model.ts";
import { POINTS } from "./master_model.ts";
import type { Scene } from "./scene.ts";
import type { WorkerModel } from "./worker_model.ts";

/** What faults befall: the parts of a cluster, as they are now. */
export interface Victims {
  masters: MasterModel[];
  /** Those that live. */
  workers(): WorkerModel[];
  hire(): void;
}

type Fault = (scene: Scene, victims: Victims) => void;

const FAULTS: Fault[] = [
  /** A master dies. */
  (scene, victims) => aMaster(scene, victims)?.crash(),
  /** The leader dies where it hurts. */
  (scene) => {
    const leader = scene.coordinator.leader();
    if (leader !== undefined) leader.diesAt = scene.world.pick([...POINTS]);
  },
  (scene, victims) => aMaster(scene, victims)?.standStill(scene.world.between(500, 12_000)),
  (scene, victims) => aMaster(scene, victims)?.demote(),
  (scene, victims) => {
    const worker = aWorker(scene, victims);
    if (worker !== undefined) replace(scene, victims, worker);
  },
  /** A worker stands still, and may not live long enough to hear what it has missed. */
  (scene, victims) => {
    const worker = aWorker(scene, victims);
    if (worker === undefined) return;
    const { world } = scene;
    const forMs = world.between(500, 40_000);
    worker.standStill(forMs);
    if (world.chance(0.5))
      world.after(forMs + world.between(0, 30), () => replace(scene, victims, worker));
  },
  /** A worker hangs while its job is cancelled; it may leave something behind when it dies. */
  (scene, victims) => {
    const { world } = scene;
    const worker = aWorker(scene, victims);
    const [attempt] = worker?.agent.held.keys() ?? [];
    if (worker === undefined || attempt === undefined) return;
    worker.link?.break();
    worker.standStill(15_000);
    cancelJob(scene, attempt.slice(0, attempt.indexOf("/")));
    world.after(15_000 + world.between(0, 30), () => replace(scene, victims, worker));
  },
  /** A worker works on, cut off from the others, and may never come back. */
  (scene, victims) => {
    const { world } = scene;
    const worker = aWorker(scene, victims);
    const forMs = world.between(500, 25_000);
    worker?.cutOff(forMs);
    if (worker !== undefined && world.chance(0.5))
      world.after(forMs, () => replace(scene, victims, worker));
  },
  (scene, victims) => {
    aWorker(scene, victims)?.leave();
    victims.hire();
  },
  /** A stream breaks. */
  (scene, victims) => {
    const worker = aWorker(scene, victims);
    scene.world.note(`${worker?.name} loses its stream`);
    worker?.link?.break();
  },
  /** All workers die, and others come much later. */
  ({ world }, victims) => {
    const workers = victims.workers();
    for (const worker of workers) worker.crash();
    for (const _ of workers) world.after(world.between(500, 15_000), () => victims.hire());
  },
  ({ world, coordinator }) => {
    const forMs = world.between(200, 10_000);
    world.note(`the coordinator is away for ${forMs} ms`);
    coordinator.fail(forMs);
  },
  /** Somebody sets a clock. */
  (scene, victims) => {
    const process = scene.world.pick([...victims.masters, ...victims.workers()]);
    process?.clock.jump();
  },
];

/** A worker restarts: a new process has a new name. */
function replace({ world }: Scene, victims: Victims, worker: WorkerModel): void {
  if (!worker.alive) return;
  worker.crash();
  world.after(world.between(100, 5_000), () => victims.hire());
}

/** Best one that has something to lose. */
function aWorker({ world }: Scene, victims: Victims): WorkerModel | undefined {
  const workers = victims.workers();
  const busy = workers.filter(({ agent }) => agent.held.size > 0);
  return world.pick(busy.length > 0 && world.chance(0.7) ? busy : workers);
}

function aMaster({ world, coordinator }: Scene, { masters }: Victims): MasterModel | undefined {
  return world.chance(0.7) ? coordinator.leader() : world.pick(masters);
}

/**
 * Faults, one after the other, until it is time to come to rest. Every seed has
 * its own mix: where some kinds never happen, the others come in quick succession.
 */
export function trouble(scene: Scene, victims: Victims, untilMs: number): void {
  const { world } = scene;
  const weights = FAULTS.map(() => (world.chance(0.7) ? 0 : world.random()));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const mostMs = world.pick([2_000, 8_000]) ?? 0;
  const isLossy = world.chance(0.5);
  const one = () => {
    let roll = world.random() * total;
    const index = weights.findIndex((weight) => {
      roll -= weight;
      return roll < 0;
    });
    FAULTS[index]?.(scene, victims);
  };
  const next = () =>
    world.after(world.between(200, mostMs), () => {
      if (world.nowMs >= untilMs) return;
      if (isLossy && world.chance(0.5)) loseOutput(scene, victims);
      else one();
      next();
    });
  next();
}
