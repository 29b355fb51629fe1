import assert from "node:assert/strict";
import { Etcd3, type Watcher } from "etcd3";
import { stepId } from "../../internal/model/ids.ts";
import type { DoneRecord, JobRecord, ReportRecord } from "../../internal/model/records.ts";
import { until } from "../support/processes.ts";

const PREFIX = "mr/";

interface Change {
  revision: number;
  /** Without the prefix. */
  key: string;
  value: string | undefined;
}

/**
 * All that was ever written to etcd, in order, and what must hold of it:
 *
 * H1  a task has one winner; another one only after the first was recorded as lost
 * H2  job records are written only while there is a leader, and by no deposed one
 * H3  every accepted job gets one report, and it never changes
 * H4  a part is visible only of a job that is committing or has succeeded
 * H5  no task is granted again by a later leader once its winner is recorded, unless
 *     what it made was lost
 */
export class History {
  private readonly client: Etcd3;
  private readonly changes: Change[] = [];
  private watcher: Watcher | undefined;

  private constructor(address: string) {
    this.client = new Etcd3({ hosts: address });
  }

  static async record(address: string): Promise<History> {
    const history = new History(address);
    const watcher = await history.client.watch().prefix(PREFIX).startRevision("1").create();
    history.watcher = watcher;
    // `data` carries a whole response: all changes of one revision or more, in order.
    watcher.on("data", ({ events }) => {
      for (const { type, kv } of events)
        history.changes.push({
          revision: Number(kv.mod_revision),
          key: kv.key.toString().slice(PREFIX.length),
          value: type === "Put" ? kv.value.toString() : undefined,
        });
    });
    return history;
  }

  /** Waits until everything written so far is known here. */
  async upToDate(): Promise<void> {
    await until("the history", async () => {
      const query = this.client.getAll().prefix(PREFIX).sort("Mod", "Descend").limit(1);
      const newest = (await query.exec()).kvs[0];
      const known = this.changes.at(-1)?.revision ?? 0;
      return newest === undefined || known >= Number(newest.mod_revision);
    });
  }

  specOf(job: string): JobRecord | undefined {
    const value = this.valuesOf(`job/${job}/spec`).find((text) => text !== undefined);
    return value === undefined ? undefined : (JSON.parse(value) as JobRecord);
  }

  /** Of a job with steps: its last one is. */
  isCommitting(job: string): boolean {
    const steps = this.specOf(job)?.spec.steps.length ?? 0;
    const id = steps === 0 ? job : stepId(job, steps - 1);
    return this.valuesOf(`job/${id}/committing`).some((value) => value !== undefined);
  }

  /** Some reduce tasks are done, and not all. */
  isReducing(job: string): boolean {
    const done = this.changes.some(({ key }) => key.startsWith(`job/${job}/done/r-`));
    return done && !this.isCommitting(job) && this.valuesOf(`job/${job}/report`).length === 0;
  }

  /** Objects of map attempts that have won, of a job that runs. */
  mapOutputs(job: string): string[] {
    const found = new Map<string, string>();
    for (const { key, value } of this.changes) {
      if (!key.startsWith(`job/${job}/done/m-`)) continue;
      if (value === undefined) found.delete(key);
      else {
        const { output } = JSON.parse(value) as DoneRecord;
        if (output.kind === "segments") found.set(key, output.object);
      }
    }
    return [...found.values()];
  }

  private valuesOf(key: string): (string | undefined)[] {
    return this.changes.filter((change) => change.key === key).map(({ value }) => value);
  }

  /**
   * @param granted all attempts that were ever granted.
   * @returns what was found wrong.
   */
  check(accepted: string[], granted: string[]): string[] {
    return [
      ...this.checkWinners(),
      ...this.checkLeaders(),
      ...this.checkReports(accepted),
      ...this.checkGrants(granted),
    ];
  }

  private checkGrants(granted: string[]): string[] {
    let epoch = 0;
    const recordedIn = new Map<string, number>();
    const lost = new Set<string>();
    for (const { key, value, revision } of this.changes) {
      if (key === "leader" && value !== undefined) epoch = revision;
      const [, job = "", kind, task] = key.split("/");
      if (kind === "done" && value !== undefined && !recordedIn.has(`${job}/${task}`))
        recordedIn.set(`${job}/${task}`, epoch);
      if (kind === "lost") lost.add(job);
    }
    return granted.flatMap((attempt) => {
      const [job = "", task, name] = attempt.split("/");
      const done = recordedIn.get(`${job}/${task}`);
      const again = done !== undefined && !lost.has(job) && Number(name?.split("-")[0]) > done;
      return again ? [`H5: ${attempt} was granted, and its task was done in epoch ${done}`] : [];
    });
  }

  private checkWinners(): string[] {
    const faults: string[] = [];
    const winner = new Map<string, string>();
    for (const { key, value } of this.changes) {
      if (!/^job\/[^/]+\/done\//.test(key)) continue;
      if (value === undefined) {
        winner.delete(key);
        continue;
      }
      const { attempt } = JSON.parse(value) as DoneRecord;
      const before = winner.get(key);
      if (before !== undefined && before !== attempt)
        faults.push(`H1: ${key} was won by ${before} and by ${attempt}`);
      winner.set(key, attempt);
    }
    return faults;
  }

  private checkLeaders(): string[] {
    const faults: string[] = [];
    let leads = false;
    for (const { key, value, revision } of this.changes) {
      if (key === "leader") leads = value !== undefined;
      else if (/^(job|worker)\//.test(key) && !leads)
        faults.push(`H2: ${key} was written without a leader (${revision})`);
    }
    return faults;
  }

  private checkReports(accepted: string[]): string[] {
    const faults: string[] = [];
    for (const job of accepted) {
      const reports = this.valuesOf(`job/${job}/report`).flatMap((value) =>
        value === undefined ? [] : [(JSON.parse(value) as ReportRecord).state],
      );
      if (reports.length === 0) faults.push(`H3: ${job} was accepted and has no report`);
      if (new Set(reports).size > 1) faults.push(`H3: ${job} ended as ${reports.join(", then ")}`);
    }
    return faults;
  }

  async close(): Promise<void> {
    await this.watcher?.cancel().catch(() => undefined);
    this.client.close();
    assert.ok(this.changes.length > 0, "the history is empty");
  }
}
