import assert from "node:assert/strict";
import type { RecordWrite } from "../../internal/model/coordinator.ts";
import { parseAttemptId, stepId, taskId } from "../../internal/model/ids.ts";
import type { JobSpec } from "../../internal/model/job_request.ts";
import {
  type DoneRecord,
  type JobRecord,
  key,
  type ReportRecord,
} from "../../internal/model/records.ts";
import { type Assignment, attemptOfMapOutput, type Receipt } from "../../internal/model/task.ts";

/** What a run has met: a simulation that never comes to it proves nothing of it. */
export const SEEN = [
  "jobs",
  "leaders",
  "outputs lost",
  "results reset",
  "parts gone",
  "results refused",
  "backups",
  "leftovers swept",
  "bad records",
  "reduce phases",
  "ranges cut",
  "pipelines",
  "pipelines resumed",
] as const;
export type Seen = Record<(typeof SEEN)[number], number>;

export function nothingSeen(): Seen {
  return Object.fromEntries(SEEN.map((what) => [what, 0])) as Seen;
}

/** A task's winner that a commit took away. */
interface Lost {
  done: DoneRecord;
  commit: RecordWrite[];
}

/**
 * What an all-seeing observer knows, and holds against the cluster:
 *
 * I1  a task has one winner for ever; save that a map task loses it in a commit that
 *     writes its `lost`, and reduce tasks lose theirs in one that writes `stale`,
 *     which a job with a deterministic mapper never needs
 * I2  while a job runs, `settled won` goes to recorded winners only and `settled
 *     lost` never to one; afterwards nothing that is still a result may be deleted
 * I3  no task is granted once its winner is recorded, save in the very commit that
 *     records it: there the revocation follows at once; no attempt is granted twice
 * I4  reducers are sent to the winners' outputs
 * I5  only winners' receipts are published, all of them before the marker
 * I6  a job's report never changes, it is recorded as succeeded if and only if the job is marked
 * I7  a client is told of a job only when it is recorded
 * I8  a winner's output is there when it is recorded, and not deleted while it is needed
 * I9  what is published rests on one output of each map task: every reduce winner has
 *     read pairs with the digest of that task's last winner
 * I11 a step is planned when what it reads is marked; a pipeline has succeeded if and only
 *     if all its steps have
 * I10 a job's ranges are cut once; its reduces have no others
 */
export class History {
  /** By JOB/TASK: the attempt that has won. */
  readonly winners = new Map<string, DoneRecord>();
  readonly specs = new Map<string, JobSpec>();
  readonly reports = new Map<string, ReportRecord>();
  /** Jobs that a client was told of. */
  readonly accepted = new Set<string>();
  readonly marked = new Set<string>();
  readonly seen = nothingSeen();
  /** Whether an object can be there, for all the cluster has done: it exists, or a fault took it. */
  isThere: (object: string) => boolean = () => true;

  private readonly everWon = new Set<string>();
  private readonly grants = new Set<string>();
  /** Where the ranges of a job's reduces begin, as recorded. */
  private readonly cuts = new Map<string, string>();
  /** The commit in which each task was won. */
  private readonly wonIn = new Map<string, RecordWrite[]>();
  private readonly lost = new Map<string, Lost>();
  /** The digests that each reduce attempt has read, by map task. */
  private readonly reads = new Map<string, (string | undefined)[]>();

  committed(commit: RecordWrite[]): void {
    const written = new Map(commit.map((write) => [write.key, write]));
    for (const { key: name, value } of commit) {
      const [kind, job = "", what, task = ""] = name.split("/");
      if (kind !== "job") continue;
      if (what === "done") this.winnerIs(job, task, value, written, commit);
      if (value === undefined) continue;
      if (what === "spec") this.specs.set(job, (JSON.parse(value) as JobRecord).spec);
      if (what === "report") this.reported(job, JSON.parse(value));
      if (what === "cuts") this.cut(job, value);
      if (what === "lost") this.seen["outputs lost"] += 1;
      if (what === "stale") {
        this.seen["results reset"] += 1;
        assert.ok(!isSteady(this.specs.get(job)?.name), `I1: ${job} was reset without need`);
      }
    }
  }

  private cut(job: string, value: string): void {
    const before = this.cuts.get(job);
    assert.ok(before === undefined || before === value, `I10: ${job} was cut again`);
    if (before === undefined) this.seen["ranges cut"] += 1;
    this.cuts.set(job, value);
  }

  private winnerIs(
    job: string,
    task: string,
    value: string | undefined,
    written: Map<string, RecordWrite>,
    commit: RecordWrite[],
  ): void {
    const name = `${job}/${task}`;
    const before = this.winners.get(name);
    const done = value === undefined ? undefined : (JSON.parse(value) as DoneRecord);
    if (before?.attempt === done?.attempt) return;
    // Of an ended job the records are only cleared away.
    if (this.reports.has(job) && done === undefined) return;
    if (before !== undefined) {
      // A batch may hold both the loss and the new winner: then only its end is seen.
      const isGone = written.get(key.committing(job))?.value === undefined;
      const isTakenBack = written.has(key.committing(job)) && isGone;
      if (isTakenBack) this.seen["parts gone"] += 1;
      const excused = task.startsWith("m-")
        ? written.has(key.lost(job, task)) || isTakenBack
        : written.get(key.stale(job))?.value !== undefined || isTakenBack;
      assert.ok(excused, `I1: ${name} was won by ${before.attempt}, then by ${done?.attempt}`);
      this.winners.delete(name);
      this.lost.set(name, { done: before, commit });
    }
    if (done === undefined) return;
    const { output } = done;
    if (output.kind === "segments")
      assert.ok(this.isThere(output.object), `I8: ${output.object} won and is not there`);
    if (done.bad !== undefined) this.seen["bad records"] += 1;
    this.winners.set(name, done);
    this.everWon.add(done.attempt);
    this.wonIn.set(name, commit);
  }

  private reported(job: string, report: ReportRecord): void {
    const before = this.reports.get(job);
    assert.ok(
      before === undefined || before.state === report.state,
      `I6: ${job} ended as ${before?.state} and again as ${report.state}`,
    );
    const { state } = report;
    if (report.record.spec.steps.length > 0) this.pipelineEnded(job, report);
    else
      assert.equal(
        this.marked.has(job),
        state === "succeeded",
        `I6: ${job} is ${state}; its marker`,
      );
    if (before === undefined && report.error?.message.endsWith("refused") === true)
      this.seen["results refused"] += 1;
    this.reports.set(job, report);
    if (report.record.spec.phase === "reduce") this.seen["reduce phases"] += 1;
  }

  private pipelineEnded(job: string, { record, state }: ReportRecord): void {
    const first = record.resume?.step ?? 0;
    const steps = record.spec.steps.map((_, step) => this.reports.get(stepId(job, step))?.state);
    const all = steps.slice(first).every((end) => end === "succeeded");
    assert.equal(all, state === "succeeded", `I11: ${job} is ${state}; its steps are ${steps}`);
    if (this.reports.has(job)) return;
    if (steps.length > 1 && all) this.seen.pipelines += 1;
    if (first > 0) this.seen["pipelines resumed"] += 1;
  }

  /** A step is being planned. */
  planned(job: string, data: string[]): void {
    for (const place of data) {
      const [container, before = ""] = place.split("/");
      if (container === "dfs-intermediate")
        assert.ok(this.marked.has(before), `I11: ${job} reads ${before}, which is not marked`);
    }
  }

  granted(assignment: Assignment, commit: RecordWrite[]): void {
    const { attempt, job, input } = assignment;
    const name = parseAttemptId(attempt);
    assert.ok(name && !this.grants.has(attempt), `I3: ${attempt} was granted twice`);
    this.grants.add(attempt);
    const task = `${name.job}/${name.task}`;
    const open = !this.winners.has(task) || this.wonIn.get(task) === commit;
    assert.ok(open, `I3: ${attempt} was granted after its task was won`);
    if (input.kind !== "reduce") return;
    if (input.keys !== undefined) {
      const { keys } = JSON.parse(this.cuts.get(name.job) ?? `{"keys":[]}`) as { keys: string[] };
      const bounds = [input.keys.from, input.keys.to].map((bytes) => bytes?.toString("base64"));
      const recorded = [keys[input.partition - 1], keys[input.partition]];
      assert.deepEqual(bounds, recorded, `I10: ${attempt} has another range than was recorded`);
    }
    assert.equal(input.sources.length, job.maps, `I4: the sources of ${attempt} are not all`);
    input.sources.forEach(({ object }, index) => {
      const source = `${name.job}/${taskId("map", index)}`;
      const { done, commit: takenIn } = this.lost.get(source) ?? {};
      // Lost in the very commit that grants: the revocation follows at once.
      const winner = takenIn === commit ? done : this.winners.get(source);
      const found = winner?.output.kind === "segments" && winner.output.object === object;
      assert.ok(found, `I4: ${attempt} would read ${object}, which is not the winner's`);
    });
  }

  /** A reduce attempt has read its input whole. */
  read(attempt: string, digests: (string | undefined)[]): void {
    this.reads.set(attempt, digests);
  }

  hasRead(attempt: string): boolean {
    return this.reads.has(attempt);
  }

  settled(attempt: string, won: boolean): void {
    const name = parseAttemptId(attempt);
    const isWinner = this.winners.get(`${name?.job}/${name?.task}`)?.attempt === attempt;
    const report = this.reports.get(name?.job ?? "");
    if (report === undefined && won)
      assert.ok(this.everWon.has(attempt), `I2: ${attempt} was told it won`);
    if (report === undefined || isMapResult(report))
      assert.ok(won || !isWinner, `I2: the winner ${attempt} was told it lost`);
  }

  /** Somebody is about to delete an object. */
  deleted(object: string): void {
    const attempt = attemptOfMapOutput(object);
    const name = parseAttemptId(attempt ?? "");
    const report = this.reports.get(name?.job ?? "");
    if (report !== undefined && !isMapResult(report)) return;
    const winner = this.winners.get(`${name?.job}/${name?.task}`);
    assert.notEqual(winner?.attempt, attempt, `I8: ${object} is deleted, and needed`);
  }

  publishes(job: string, receipt: Receipt): void {
    const isWinners = this.receiptsOf(job).some(({ token }) => token === receipt.token);
    assert.ok(isWinners, `I5: ${receipt.token} is published and has not won`);
    const end = this.reports.get(job)?.state ?? "succeeded";
    assert.equal(end, "succeeded", `I5: a part of ${job} is published too late`);
  }

  marks(job: string, published: Map<string, Receipt>): void {
    const receipts = this.receiptsOf(job);
    for (const { name, token } of receipts) {
      const there = published.get(`${job}/${name}`)?.token;
      assert.equal(there, token, `I5: ${job} is marked before ${name} is published`);
    }
    this.restsOnOne(job);
    this.marked.add(job);
  }

  private restsOnOne(job: string): void {
    const maps = this.winnersOf(job, "m-");
    for (const [task, { attempt }] of this.winnersOf(job, "r-")) {
      const digests = this.reads.get(attempt);
      maps.forEach(([map, { output }], index) => {
        const last = output.kind === "segments" ? output.digest : undefined;
        assert.equal(digests?.[index], last, `I9: ${task} rests on another output of ${map}`);
      });
    }
  }

  /** In task order, whichever was won first. */
  private winnersOf(job: string, kind: "m-" | "r-"): [string, DoneRecord][] {
    return [...this.winners]
      .filter(([task]) => task.startsWith(`${job}/${kind}`))
      .toSorted(([a], [b]) => (a < b ? -1 : 1));
  }

  private receiptsOf(job: string): Receipt[] {
    return [...this.winnersOf(job, "m-"), ...this.winnersOf(job, "r-")].flatMap(([, done]) => [
      ...(done.output.kind === "part" ? [done.output.receipt] : []),
      ...(done.bad === undefined ? [] : [done.bad.receipt]),
    ]);
  }

  told(job: string): void {
    assert.ok(this.specs.has(job), `I7: a client was told of ${job}, which is not recorded`);
    if (!this.accepted.has(job)) this.seen.jobs += 1;
    this.accepted.add(job);
  }
}

/** Jobs tell by their name whether their mapper is deterministic. */
export function isSteady(name: string | undefined): boolean {
  return name === "steady";
}

export function isMapResult(report: ReportRecord): boolean {
  return report.state === "succeeded" && report.record.spec.phase === "map";
}
