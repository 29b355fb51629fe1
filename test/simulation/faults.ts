import { key } from "../../internal/model/records.ts";
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
  (scene, victims) => loseOutput(scene, victims, 50),
  /** Somebody sets a clock. */
  (scene, victims) => {
    const process = scene.world.pick([...victims.masters, ...victims.workers()]);
    process?.clock.jump();
  },
];

/** An output that some have used and others still need; if there is none now, then soon. */
function loseOutput(scene: Scene, victims: Victims, tries: number): void {
  const { world, history, storage } = scene;
  const running = [...history.winners].filter(([task]) => !history.reports.has(jobOf(task)));
  const reducing = new Set(running.flatMap(([task]) => (task.includes("/r-") ? jobOf(task) : [])));
  const objects = running.flatMap(([task, { output }]) =>
    reducing.has(jobOf(task)) && output.kind === "segments" ? output.object : [],
  );
  const object = world.pick(objects);
  if (object === undefined) {
    if (tries > 0) world.after(200, () => loseOutput(scene, victims, tries - 1));
    return;
  }
  world.note(`${object} is lost`);
  storage.destroy(object, world.chance(0.5));
  const readers = victims
    .workers()
    .filter(({ agent }) =>
      [...agent.held.keys()].some((id) => id.startsWith(`${jobOf(object)}/r-`)),
    );
  const reader = world.pick(readers);
  if (reader !== undefined && world.chance(0.5)) outlastLoss(scene, reader, jobOf(object));
}

/** A reducer that may have read what is lost comes back when all that rests on it is made anew. */
function outlastLoss({ world, coordinator }: Scene, reader: WorkerModel, job: string): void {
  const untilMs = world.nowMs + world.between(0, 20_000);
  reader.cutOff(untilMs - world.nowMs);
  const look = () => {
    if (world.nowMs >= untilMs) return;
    if (coordinator.records.has(key.stale(job))) reader.cutOff(0);
    else world.after(100, look);
  };
  look();
}

function jobOf(task: string): string {
  return task.slice(0, task.indexOf("/"));
}

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
  const weights = FAULTS.map(() => (world.chance(0.4) ? 0 : world.random()));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const mostMs = world.pick([2_000, 6_000]) ?? 0;
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
      one();
      next();
    });
  next();
}
