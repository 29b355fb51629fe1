import { isMapResult } from "./history.ts";
import type { Scene } from "./scene.ts";
import type { WorkerModel } from "./worker_model.ts";

/** What is still to be done, or was left behind, in a cluster that has no more trouble. */
export function whatIsLeft(scene: Scene, workers: WorkerModel[]): string | undefined {
  const { history, coordinator, storage } = scene;
  for (const job of history.accepted) if (!history.reports.has(job)) return `${job} has not ended`;
  const names = new Set(workers.map(({ name }) => `worker/${name}`));
  for (const key of coordinator.records.keys()) {
    if (key.startsWith("job/") && !key.endsWith("/report")) return `the record ${key}`;
    if (key.startsWith("worker/") && !names.has(key)) return `${key}, which is gone`;
  }
  for (const object of storage.objects.keys()) {
    const report = history.reports.get(object.slice(0, object.indexOf("/")));
    if (report === undefined || !isMapResult(report)) return `the object ${object}`;
  }
  for (const { name, agent } of workers)
    for (const attempt of agent.held.keys()) return `${attempt}, which ${name} still holds`;
  return undefined;
}
