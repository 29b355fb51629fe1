import assert from "node:assert/strict";
import type { Job, Phase, State, Task } from "../../internal/scheduler/state.ts";
import { currentPhase } from "../../internal/scheduler/state.ts";

/** The invariants S2, S3 of a leader's state, and that its books agree with each other. */
export function checkState(state: State): void {
  for (const { id, worker } of state.attempts.values())
    if (!state.workers.get(worker)?.attempts.has(id))
      assert.fail(`S2: ${id} is not on its worker's list`);
  for (const worker of state.workers.values())
    for (const id of worker.attempts)
      if (state.attempts.get(id)?.worker !== worker.info.id)
        assert.fail(`S2: ${id} is on the list of another worker`);
  for (const job of state.jobs.values()) checkJob(state, job);
  const running = new Map<string, number>();
  for (const { record, running: count } of state.jobs.values())
    if (count > 0) running.set(record.owner, (running.get(record.owner) ?? 0) + count);
  assert.deepEqual(state.running, running, "the counts of what owners run are off");
}

function checkJob(state: State, job: Job): void {
  const current = currentPhase(job);
  let running = 0;
  for (const phase of [job.map, job.reduce]) {
    let done = 0;
    for (const task of phase.tasks) {
      const live = liveAttempts(state, task);
      running += live.length;
      if (task.state.kind === "done") done += 1;
      if (phase === current) checkTask(state, job, phase, task, live);
      if (live.length > 1) checkBackups(state, live);
    }
    assert.equal(phase.done, done, `${job.record.id}: the count of done tasks is off`);
  }
  assert.equal(job.running, running, `${job.record.id}: the count of running attempts is off`);
}

function checkTask(state: State, job: Job, phase: Phase, task: Task, live: string[]): void {
  const says = (what: string) => `S3: ${job.record.id} ${task.kind} ${task.index} ${what}`;
  const { kind } = task.state;
  if (kind === "running" && live.length === 0) assert.fail(says("runs nowhere"));
  if (kind !== "running" && live.length > 0) assert.fail(says(`is ${kind} and has a live attempt`));
  if (kind !== "pending" || job.held) return;
  const queued =
    phase.ready.includes(task.index) || phase.delayed.some(({ index }) => index === task.index);
  if (!queued) assert.fail(says("was forgotten"));
  if (phase.ready.includes(task.index) && !state.runnable.has(job.record.id))
    assert.fail(says("is ready, but its job is not considered"));
}

function checkBackups(state: State, live: string[]): void {
  const workers = new Set(live.map((id) => state.attempts.get(id)?.worker));
  assert.ok(live.length === 2 && workers.size === 2, `S2: ${live.join(", ")} run at a time`);
}

const NONE: string[] = [];

function liveAttempts(state: State, task: Task): string[] {
  if (task.attempts.length === 0) return NONE;
  return task.attempts.filter((id) => state.attempts.get(id)?.revoked === false);
}

/** Whether another attempt of the same task counts beside this one. */
export function isBackup(state: State, id: string): boolean {
  const attempt = state.attempts.get(id);
  const job = state.jobs.get(attempt?.job ?? "");
  const phase = attempt?.kind === "map" ? job?.map : job?.reduce;
  const task = phase?.tasks[attempt?.index ?? 0];
  return task !== undefined && liveAttempts(state, task).length > 1;
}
