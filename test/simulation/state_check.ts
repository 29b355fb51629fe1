import assert from "node:assert/strict";
import type { Job, State, Task } from "../../internal/scheduler/state.ts";
import { currentPhase } from "../../internal/scheduler/state.ts";

/** The invariants S2, S3 of a leader's state, and that its books agree with each other. */
export function checkState(state: State): void {
  for (const attempt of state.attempts.values()) {
    const worker = state.workers.get(attempt.worker);
    assert.ok(worker?.attempts.has(attempt.id), `${attempt.id} is not on its worker's list`);
  }
  for (const worker of state.workers.values())
    for (const id of worker.attempts)
      assert.equal(state.attempts.get(id)?.worker, worker.info.id, `S2: ${id} on two workers`);
  for (const job of state.jobs.values()) checkJob(state, job);
}

function checkJob(state: State, job: Job): void {
  let running = 0;
  for (const phase of [job.map, job.reduce]) {
    let done = 0;
    for (const task of phase.tasks) {
      const live = liveAttempts(state, task);
      running += live.length;
      checkBackups(state, live);
      const name = `${job.record.id} ${task.kind} ${task.index}`;
      if (task.state.kind === "done") done += 1;
      if (phase !== currentPhase(job)) continue;
      if (task.state.kind === "running") assert.ok(live.length > 0, `S3: ${name} runs nowhere`);
      else assert.equal(live.length, 0, `S3: ${name} is ${task.state.kind} and has a live attempt`);
      if (task.state.kind !== "pending") continue;
      const queued =
        job.held ||
        phase.ready.includes(task.index) ||
        phase.delayed.some((entry) => entry.index === task.index);
      assert.ok(queued, `S3: ${name} was forgotten`);
    }
    assert.equal(phase.done, done, `${job.record.id}: the count of done tasks is off`);
  }
  assert.equal(job.running, running, `${job.record.id}: the count of running attempts is off`);
}

function checkBackups(state: State, live: string[]): void {
  if (live.length < 2) return;
  const workers = new Set(live.map((id) => state.attempts.get(id)?.worker));
  assert.ok(live.length === 2 && workers.size === 2, `S2: ${live.join(", ")} run at a time`);
}

function liveAttempts(state: State, task: Task): string[] {
  return [...task.attempts].filter((id) => state.attempts.get(id)?.revoked === false);
}

/** Whether another attempt of the same task counts beside this one. */
export function isBackup(state: State, id: string): boolean {
  const attempt = state.attempts.get(id);
  const job = state.jobs.get(attempt?.job ?? "");
  const phase = attempt?.kind === "map" ? job?.map : job?.reduce;
  const task = phase?.tasks[attempt?.index ?? 0];
  return task !== undefined && liveAttempts(state, task).length > 1;
}
