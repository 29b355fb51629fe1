import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseJobRequest } from "../../internal/model/job_request.ts";
import type { Command, Event } from "../../internal/scheduler/events.ts";
import {
  DEFAULT_SCHEDULER_CONFIG,
  newState,
  type SchedulerConfig,
  stateOf,
} from "../../internal/scheduler/state.ts";
import { step } from "../../internal/scheduler/step.ts";

type Untimed<E> = E extends unknown ? Omit<E, "atMs" | "wallMs"> : never;

/** A leader to which clients with names submit jobs that nobody runs. */
class Core {
  readonly state;
  private nowMs = 1;
  private jobs = 0;

  constructor(config: Partial<SchedulerConfig>) {
    this.state = newState({ ...DEFAULT_SCHEDULER_CONFIG, ...config }, 1);
  }

  run(event: Untimed<Event>): Command[] {
    const timed = { ...event, atMs: this.nowMs, wallMs: this.nowMs } as Event;
    const commands = step(this.state, timed);
    for (const command of commands)
      if (command.kind === "sweep")
        this.run({ kind: "swept", job: command.job.id, what: command.what });
    return commands;
  }

  submit(owner: string, more: object = {}): string {
    this.jobs += 1;
    const id = `20260101-000000-${String(this.jobs).padStart(6, "0")}`;
    const spec = parseJobRequest({ mapper: "m.py", data: "text", r_num: 0, ...more });
    this.run({ kind: "submit", reply: 1, id, spec, idempotencyKey: "", owner, scripts: {} });
    return id;
  }

  cancel(id: string): void {
    this.run({ kind: "cancel", reply: 1, id });
  }

  tick(): void {
    this.run({ kind: "tick" });
  }

  isQueued(id: string): boolean {
    const job = this.state.jobs.get(id);
    assert.ok(job);
    return stateOf(job) === "queued";
  }

  of(owner: string): number {
    return [...this.state.jobs.values()].filter(({ record }) => record.owner === owner).length;
  }
}

describe("what clients share", () => {
  it("is places among active jobs: one who has none gets his, whoever came first", () => {
    const core = new Core({ activeJobsMax: 4 });
    const hogs = Array.from({ length: 8 }, () => core.submit("hog"));
    assert.deepEqual(
      hogs.map((id) => core.isQueued(id)),
      [0, 0, 0, 0, 1, 1, 1, 1].map(Boolean),
    );
    const others = [core.submit("bob"), core.submit("bob"), core.submit("bob")];
    assert.deepEqual(
      others.map((id) => core.isQueued(id)),
      [false, false, true],
    );
    // More come: to each his own, and what becomes free goes to whoever has fewest.
    const more = [core.submit("carol"), core.submit("carol")];
    assert.deepEqual(
      more.map((id) => core.isQueued(id)),
      [false, true],
    );
    for (const id of hogs.slice(0, 3)) core.cancel(id);
    assert.equal(core.isQueued(hogs[4] ?? ""), true, "one hog, two of bob, one of carol");
    core.cancel(more[0] ?? "");
    assert.equal(core.isQueued(more[1] ?? ""), false);
    assert.equal(core.isQueued(hogs[4] ?? ""), true);
  });

  it("is places by priority first, and all of them for one who is alone", () => {
    const core = new Core({ activeJobsMax: 2 });
    const low = [core.submit("ann"), core.submit("ann"), core.submit("ann")];
    assert.deepEqual(
      low.map((id) => core.isQueued(id)),
      [false, false, true],
    );
    assert.equal(core.isQueued(core.submit("ann", { priority: 5 })), false);
  });

  it("is room for ended jobs: the oldest of whoever has most go first", () => {
    const core = new Core({ endedJobsMax: 10 });
    const own = [core.submit("bob"), core.submit("bob")];
    const few = core.submit("carol");
    for (const id of [...own, few]) core.cancel(id);
    const last = Array.from({ length: 50 }, () => {
      const id = core.submit("hog");
      core.cancel(id);
      core.tick();
      return id;
    });
    for (const id of [...own, few]) assert.ok(core.state.jobs.has(id), `${id} was forgotten`);
    assert.equal(core.of("hog"), 7);
    assert.ok(core.state.jobs.has(last.at(-1) ?? ""));
    assert.equal(core.state.jobs.has(last[0] ?? ""), false);
  });
});
