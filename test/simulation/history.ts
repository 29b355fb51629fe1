import assert from "node:assert/strict";
import type { RecordWrite } from "../../internal/model/coordinator.ts";
import { parseAttemptId } from "../../internal/model/ids.ts";
import type { DoneRecord, ReportRecord } from "../../internal/model/records.ts";
import type { Assignment, Receipt } from "../../internal/model/task.ts";
import type { Marker } from "../../internal/scheduler/events.ts";

/**
 * What an all-seeing observer knows, and holds against the cluster:
 *
 * I1  a task has one winner for ever
 * I2  while a job runs, `settled won` goes to the recorded winner only and `settled
 *     lost` never to it; afterwards nothing that is still a result may be deleted
 * I3  no task is granted once its winner is recorded, save in the very commit that
 *     records it: there the revocation follows at once
 * I4  reducers read exactly the winners' outputs
 * I5  only winners' receipts are published, all of them before the marker
 * I6  a job's report never changes, and a marked job succeeds
 * I7  a client is told of a job only when it is recorded
 * I8  a winner's output is not deleted while its job needs it
 */
export class History {
  /** By JOB/TASK: the attempt that won, for ever. */
  readonly winners = new Map<string, DoneRecord>();
  readonly reports = new Map<string, ReportRecord>();
  readonly published = new Map<string, Receipt>();
  readonly markers = new Set<string>();
  readonly specs = new Set<string>();
  readonly accepted = new Set<string>();
  /** Objects in dfs-intermediate, and whether their maker still lives. */
  readonly objects = new Map<string, { readonly alive: boolean }>();
  /** Grants of every attempt, by id. */
  readonly grants = new Map<string, Assignment>();

  /** The commit in which each task was won. */
  private readonly wonIn = new Map<string, RecordWrite[]>();

  recorded(key: string, value: string | undefined, commit: RecordWrite[]): void {
    const [kind, job = "", what = "", task = ""] = key.split("/");
    if (kind !== "job" || value === undefined) return;
    if (what === "spec") this.specs.add(job);
    if (what === "done") {
      const done = JSON.parse(value) as DoneRecord;
      const before = this.winners.get(`${job}/${task}`);
      assert.ok(
        before === undefined || before.attempt === done.attempt,
        `I1: ${job}/${task} was won by ${before?.attempt} and again by ${done.attempt}`,
      );
      this.winners.set(`${job}/${task}`, done);
      if (before === undefined) this.wonIn.set(`${job}/${task}`, commit);
    }
    if (what === "report") {
      const report = JSON.parse(value) as ReportRecord;
      const before = this.reports.get(job);
      assert.ok(
        before === undefined || before.state === report.state,
        `I6: ${job} ended as ${before?.state} and again as ${report.state}`,
      );
      if (this.markers.has(job))
        assert.equal(report.state, "succeeded", `I6: ${job} is marked but ${report.state}`);
      this.reports.set(job, report);
    }
  }

  granted(assignment: Assignment, commit: RecordWrite[]): void {
    const name = parseAttemptId(assignment.attempt);
    assert.ok(name);
    assert.ok(
      !this.winners.has(`${name.job}/${name.task}`) ||
        this.wonIn.get(`${name.job}/${name.task}`) === commit,
      `I3: ${assignment.attempt} was granted after its task was won`,
    );
    this.grants.set(assignment.attempt, assignment);
    if (assignment.input.kind !== "reduce") return;
    const expected: string[] = [];
    for (let index = 0; index < assignment.job.maps; index += 1) {
      const done = this.winners.get(`${name.job}/m-${String(index).padStart(5, "0")}`);
      assert.ok(done?.output.kind === "segments", `I4: ${assignment.attempt} came before its maps`);
      expected.push(done.output.object);
    }
    assert.deepEqual(
      assignment.input.sources.map((source) => source.object),
      expected,
      `I4: ${assignment.attempt} would not read the winners`,
    );
  }

  /** A reduce attempt reads its input. */
  read(attempt: string): void {
    const assignment = this.grants.get(attempt);
    if (assignment?.input.kind !== "reduce" || this.reports.has(assignment.job.id)) return;
    for (const { object } of assignment.input.sources)
      assert.ok(this.objects.has(object), `I8: ${object} was deleted before ${attempt} read it`);
  }

  settled(attempt: string, won: boolean): void {
    const name = parseAttemptId(attempt);
    const winner = this.winners.get(`${name?.job}/${name?.task}`);
    const report = this.reports.get(name?.job ?? "");
    if (report !== undefined) {
      const isResult = report.state === "succeeded" && report.record.spec.phase === "map";
      if (isResult && winner?.attempt === attempt)
        assert.ok(won, `I2: ${attempt} was told to delete a part of a map phase's result`);
      return;
    }
    if (won) assert.equal(winner?.attempt, attempt, `I2: ${attempt} was told it won`);
    else assert.notEqual(winner?.attempt, attempt, `I2: the winner ${attempt} was told it lost`);
  }

  publishedPart(job: string, receipt: Receipt): void {
    const winner = [...this.winners.entries()].find(
      ([task, done]) =>
        task.startsWith(`${job}/`) &&
        done.output.kind === "part" &&
        done.output.receipt.token === receipt.token,
    );
    assert.ok(winner, `I5: ${receipt.token} was published and did not win`);
    assert.ok(
      !this.reports.has(job) || this.reports.get(job)?.state === "succeeded",
      "I5: too late",
    );
    this.published.set(`${job}/${receipt.name}`, receipt);
  }

  marked(job: string, marker: Marker, parts: number): void {
    const there = [...this.published.keys()].filter((name) => name.startsWith(`${job}/`)).length;
    if (marker.name.endsWith("_SUCCESS"))
      assert.equal(there, parts, `I5: ${job} was marked with ${there} of ${parts} parts`);
    this.markers.add(job);
  }

  told(job: string): void {
    assert.ok(this.specs.has(job), `I7: a client was told of ${job}, which is not recorded`);
    this.accepted.add(job);
  }
}
