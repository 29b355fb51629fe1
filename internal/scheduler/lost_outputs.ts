/**
 * A winner's map output that a reducer could not read whole is lost: the map task
 * alone runs again, and the reduce stage waits for it.
 *
 * Reduce tasks that are done keep their results if the new output has the same
 * digest. If it has not (the mapper is not deterministic), they and every reduce
 * attempt granted so far rest on pairs that are no more: `stale` is recorded, they
 * run again, and the result stays that of one sequential run.
 */
import { type AttemptId, parseAttemptId, taskId } from "../model/ids.ts";
import { key } from "../model/records.ts";
import type { Receipt } from "../model/task.ts";
import type { Command, Event } from "./events.ts";
import { endJob } from "./job_end.ts";
import { findTask, forgetDone, revoke } from "./leases.ts";
import { deleteKeys } from "./record_writes.ts";
import { type Job, makeReady, PENDING, type State, segmentsOf, type Task } from "./state.ts";

type At = Pick<Event, "atMs" | "wallMs">;

/** Map tasks of the job whose recorded winners these attempts are; in a reduce phase, those of another job. */
export function winnersOf(job: Job, attempts: AttemptId[]): Task[] {
  return attempts.flatMap((id) => {
    const name = parseAttemptId(id);
    if (name?.kind !== "map") return [];
    const task = job.map.tasks[name.index];
    return task?.state.kind === "done" && task.state.done.attempt === id ? task : [];
  });
}

/** @param lost done map tasks whose outputs are gone. */
export function loseOutputs(state: State, job: Job, lost: Task[], at: At, out: Command[]): void {
  const [first] = lost;
  if (first === undefined || (job.stage.kind !== "reduce" && job.stage.kind !== "map")) return;
  const message = `the output of ${taskId("map", first.index)} is lost`;
  const error = { class: "infra", message, task: taskId("map", first.index) };
  const end = (why: string) => {
    const details = { ...error, message: `${message} (${why})`, attempt: "", logTail: "" };
    endJob(state, job, { state: "failed", error: details }, at, out);
  };
  if (job.record.spec.phase === "reduce")
    return end(`it was made by job ${job.record.spec.from}; run its map phase again`);
  for (const task of lost) lose(job, task, out);
  const worst = Math.max(...lost.map((task) => task.infraFailures));
  if (worst >= state.config.infraFailuresMax) return end(`${worst} times`);
  returnToMap(state, job, out);
  for (const task of lost) makeReady(state, job, job.map, task.index, "last");
  out.push({ kind: "changed", job: job.record.id });
}

/**
 * Parts that were handed in and cannot be published, for what was staged is gone (the storage drops it
 * after a week, say, or it never was). Their tasks run again: the decision to publish is taken back
 * with their results, in one record. Without a task that could make it again the job fails.
 */
export function losePart(
  state: State,
  job: Job,
  gone: readonly Receipt[],
  at: At,
  out: Command[],
): void {
  const phase = job.reduce.tasks.length > 0 ? job.reduce : job.map;
  const names = new Set(gone.map(({ container, name }) => `${container}/${name}`));
  const lost = phase.tasks.filter(({ state: { kind, ...of } }) => {
    const output = kind === "done" && "done" in of ? of.done.output : undefined;
    return (
      output?.kind === "part" && names.has(`${output.receipt.container}/${output.receipt.name}`)
    );
  });
  const message = `what was handed in as ${[...names][0]} is gone`;
  const end = (why: string, task: string) => {
    const error = { class: "infra", message: `${message}${why}`, task, attempt: "", logTail: "" };
    endJob(state, job, { state: "failed", error }, at, out);
  };
  if (lost.length < names.size) return end("", "");
  const { id } = job.record;
  deleteKeys(
    [key.committing(id), ...lost.map((task) => key.done(id, taskId(task.kind, task.index)))],
    out,
  );
  for (const task of lost) {
    forgetDone(job, phase, task);
    task.infraFailures += 1;
    task.lastError = message;
  }
  const worst = lost.toSorted((a, b) => b.infraFailures - a.infraFailures)[0] as Task;
  if (worst.infraFailures >= PUBLISHES_MAX)
    return end(` (${worst.infraFailures} times)`, taskId(worst.kind, worst.index));
  job.sources = phase.kind === "reduce" ? segmentsOf(job) : [];
  job.stage = { kind: phase.kind };
  for (const task of lost) makeReady(state, job, phase, task.index, "last");
  out.push({ kind: "changed", job: id });
}

/** What is gone so often is never there. */
const PUBLISHES_MAX = 4;

function lose(job: Job, task: Task, out: Command[]): void {
  if (task.state.kind !== "done") return;
  const { output } = task.state.done;
  const digest = output.kind === "segments" ? output.digest : "";
  forgetDone(job, job.map, task);
  task.lostDigest = digest;
  task.infraFailures += 1;
  task.lastError = "its output was lost";
  const id = taskId("map", task.index);
  const writes = [
    { key: key.lost(job.record.id, id), value: JSON.stringify({ digest }) },
    { key: key.done(job.record.id, id), value: undefined },
  ];
  out.push({ kind: "put", writes });
}

function returnToMap(state: State, job: Job, out: Command[]): void {
  job.stage = { kind: "map" };
  job.sources = [];
  job.reduce.ready = [];
  job.reduce.delayed = [];
  for (const task of job.reduce.tasks) {
    for (const id of task.attempts) revoke(state, id, "a map output was lost", out);
    if (task.state.kind === "running") task.state = PENDING;
  }
}

/**
 * The lost output was made again, with this digest.
 * @returns what to write beside its `done`.
 */
export function replaceLost(state: State, job: Job, task: Task, digest: string, out: Command[]) {
  const gone = { key: key.lost(job.record.id, taskId("map", task.index)), value: undefined };
  const same = task.lostDigest === digest;
  task.lostDigest = undefined;
  if (same) return [gone];
  const redone = job.reduce.tasks.filter(({ state }) => state.kind === "done");
  for (const other of redone) forgetDone(job, job.reduce, other);
  deleteKeys(
    redone.map((other) => key.done(job.record.id, taskId("reduce", other.index))),
    out,
  );
  job.stale = { epoch: state.epoch, grant: state.grants };
  return [gone, { key: key.stale(job.record.id), value: JSON.stringify(job.stale) }];
}

/** The task of an attempt, unless what it rests on is no more. */
export function findCurrent(state: State, id: AttemptId) {
  const found = findTask(state, id);
  return found === undefined || isStale(found.job, id) ? undefined : found;
}

/** Whether a reduce attempt was granted before a map output was replaced by a different one. */
function isStale(job: Job, id: AttemptId): boolean {
  const name = parseAttemptId(id);
  if (job.stale === undefined || name?.kind !== "reduce") return false;
  const [epoch = 0, grant = 0] = name.attempt.split("-").map(Number);
  return epoch < job.stale.epoch || (epoch === job.stale.epoch && grant <= job.stale.grant);
}
