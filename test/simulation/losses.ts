import { key } from "../../internal/model/records.ts";
import type { Victims } from "./faults.ts";
import type { Scene } from "./scene.ts";

const LOOK_MS = 100;
const PATIENCE_MS = 20_000;

/** Loses an output that some have used and others still need; if there is none now, then soon. */
export function loseOutput(scene: Scene, victims: Victims, triesMs = PATIENCE_MS): void {
  const { world, history, storage } = scene;
  const running = [...history.winners].filter(([task]) => !history.reports.has(jobOf(task)));
  const reducing = new Set(running.flatMap(([task]) => (task.includes("/r-") ? jobOf(task) : [])));
  const needed = running.flatMap(([task, { output }]) =>
    reducing.has(jobOf(task)) && output.kind === "segments" ? { task, object: output.object } : [],
  );
  const lost = world.pick(needed);
  if (lost === undefined) {
    if (triesMs > 0) world.after(LOOK_MS, () => loseOutput(scene, victims, triesMs - LOOK_MS));
    return;
  }
  world.note(`${lost.object} is lost`);
  storage.destroy(lost.object, world.chance(0.5));
  if (world.chance(0.5)) outlastLoss(scene, victims, jobOf(lost.task));
}

/** Who has read what is lost is cut off, and back when all that rests on it is being redone. */
function outlastLoss({ world, history, coordinator }: Scene, victims: Victims, job: string): void {
  const hasRead = (id: string) => id.startsWith(`${job}/r-`) && history.hasRead(id);
  const readers = victims.workers().filter(({ agent }) => [...agent.held.keys()].some(hasRead));
  const reader = world.pick(readers);
  if (reader === undefined) return;
  const untilMs = world.nowMs + PATIENCE_MS;
  reader.cutOff(PATIENCE_MS);
  const look = () => {
    if (world.nowMs >= untilMs) return;
    const { held } = reader.agent;
    const isSealed = [...held].some(([id, { kind }]) => hasRead(id) && kind === "sealed");
    if (isSealed && coordinator.records.has(key.stale(job))) reader.cutOff(0);
    else world.after(LOOK_MS, look);
  };
  look();
}

function jobOf(task: string): string {
  return task.slice(0, task.indexOf("/"));
}
