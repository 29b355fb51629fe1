import assert from "node:assert/strict";
import type { Receipt, Segments } from "../../internal/model/task.ts";
import type { Marker } from "../../internal/scheduler/events.ts";
import type { History } from "./history.ts";

/** dfs-intermediate and the outputs. Sees each deletion, and tells the observer of it. */
export class StorageModel {
  /** The digest of each object of dfs-intermediate; undefined: it can no longer be read. */
  readonly objects = new Map<string, string | undefined>();
  /** The body of each marker, by job. */
  readonly markers = new Map<string, string>();
  /** What was published, by JOB/NAME. */
  readonly published = new Map<string, Receipt>();
  /** Tokens of what was staged, and dropped before it was published. */
  readonly gone = new Set<string>();
  /** Objects that a fault has taken. */
  readonly destroyed = new Set<string>();
  private readonly history: History;

  constructor(history: History) {
    this.history = history;
  }

  write(output: Segments): void {
    this.objects.set(output.object, output.digest);
    this.destroyed.delete(output.object);
  }

  /** A process deletes it, because the protocol says so. */
  delete(object: string): void {
    this.history.deleted(object);
    this.objects.delete(object);
  }

  /** A fault: it is gone, or not what it was. */
  destroy(object: string, gone: boolean): void {
    this.destroyed.add(object);
    if (gone) this.objects.delete(object);
    else this.objects.set(object, undefined);
  }

  jobs(): string[] {
    return [...new Set([...this.objects.keys()].map((name) => name.slice(0, name.indexOf("/"))))];
  }

  ofJob(job: string): string[] {
    return [...this.objects.keys()].filter((name) => name.startsWith(`${job}/`));
  }

  publish(job: string, receipt: Receipt): void {
    this.history.publishes(job, receipt);
    this.published.set(`${job}/${receipt.name}`, receipt);
  }

  mark(job: string, marker: Marker): void {
    this.history.marks(job, this.published);
    const before = this.markers.get(job);
    assert.ok(before === undefined || before === marker.body, `${job} was marked differently`);
    this.markers.set(job, marker.body);
  }
}
