import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseJobRequest } from "../../internal/model/job_request.ts";
import { type JobRecord, key } from "../../internal/model/records.ts";
import type { Command, Event } from "../../internal/scheduler/events.ts";
import { recover } from "../../internal/scheduler/recover.ts";
import { DEFAULT_SCHEDULER_CONFIG, newState, type State } from "../../internal/scheduler/state.ts";
import { step } from "../../internal/scheduler/step.ts";
import { viewJob } from "../../internal/scheduler/views.ts";

const ID = "20260101-000000-aaaaaa";
const AT = { atMs: 0, wallMs: 0 };

/** Everything that a leader has recorded of one job in the map stage. */
function recorded(): Map<string, string> {
  const records = new Map<string, string>();
  const state = newState(DEFAULT_SCHEDULER_CONFIG, 1);
  const spec = parseJobRequest({ mapper: "cat", reducer: "cat", data: "box", name: "kept" });
  const common = { reply: 1, idempotencyKey: "key", owner: "alice", scripts: {} };
  const range = { container: "box", name: "a", etag: "1", start: 0, length: 1, size: 1 };
  for (const event of [
    { kind: "submit", id: ID, spec, ...common },
    { kind: "planned", job: ID, plan: { kind: "splits", splits: [[range]] } },
  ])
    write(records, step(state, { ...event, ...AT } as Event));
  return records;
}

function write(records: Map<string, string>, commands: Command[]): void {
  for (const command of commands)
    if (command.kind === "put")
      for (const { key: name, value } of command.writes)
        if (value === undefined) records.delete(name);
        else records.set(name, value);
}

function taken(records: Map<string, string>): { state: State; commands: Command[] } {
  const all = [...records].map(([name, value]) => ({ key: name, value }));
  return recover(DEFAULT_SCHEDULER_CONFIG, 2, all, AT);
}

/** As a version of tomorrow would have it: more in every object whose fields are known. */
function withMore(json: string): string {
  return JSON.stringify(JSON.parse(json), (name, value) =>
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !/^(env|conf|scripts)$/.test(name)
      ? { ...value, ofTomorrow: [1] }
      : value,
  );
}

describe("records of a newer version", () => {
  it("are read by an older one, and what it does not know is kept", () => {
    const records = recorded();
    for (const [name, value] of records) records.set(name, withMore(value));
    const { state } = taken(records);
    const job = state.jobs.get(ID);
    assert.ok(job !== undefined);
    assert.equal(viewJob(state, job).state, "map");
    write(records, step(state, { kind: "cancel", reply: 1, id: ID, ...AT }));
    const report = JSON.parse(records.get(key.report(ID)) ?? "{}") as { record: JobRecord };
    assert.equal(report.record.spec.name, "kept");
    assert.ok("ofTomorrow" in report.record, "the record's");
    assert.ok("ofTomorrow" in report.record.spec, "the specification's");
  });

  it("that cannot be read fail their job, which is still there to be seen", () => {
    const broken: Record<string, (value: string) => string> = {
      "a field of another type": (value) => value.replace('"order":1', '"order":"first"'),
      "no JSON": (value) => value.slice(0, 20),
      "nothing that is known": () => '{"version":99}',
      "an empty one": () => "",
      "a list": () => "[]",
    };
    for (const [what, change] of Object.entries(broken))
      for (const name of [key.spec(ID), key.planned(ID), key.plan(ID, 0)]) {
        const records = recorded();
        const before = records.get(name) ?? "";
        if (change(before) === before) continue;
        records.set(name, change(before));
        const { state, commands } = taken(records);
        const job = state.jobs.get(ID);
        assert.ok(job !== undefined, `${name}, ${what}: the job is gone`);
        const view = viewJob(state, job);
        assert.equal(view.state, "failed", `${name}, ${what}`);
        assert.match(view.error?.message ?? "", /stored record job\/.* is not valid|plan/);
        write(records, commands);
        assert.ok(records.has(key.report(ID)), `${name}, ${what}: nobody wrote it down`);
      }
  });

  it("of an ended job that cannot be read are shown, and left as they are", () => {
    const records = recorded();
    const { state } = taken(records);
    write(records, step(state, { kind: "cancel", reply: 1, id: ID, ...AT }));
    for (const name of records.keys()) if (name !== key.report(ID)) records.delete(name);
    const report = (records.get(key.report(ID)) ?? "").replace('"cancelled"', '"paused"');
    records.set(key.report(ID), report);
    const next = taken(records);
    const job = next.state.jobs.get(ID);
    assert.ok(job !== undefined);
    const view = viewJob(next.state, job);
    assert.equal(view.state, "failed");
    assert.equal(view.spec.name, "kept");
    assert.match(view.error?.message ?? "", /report is not valid/);
    write(records, next.commands);
    assert.equal(records.get(key.report(ID)), report);
  });
});
