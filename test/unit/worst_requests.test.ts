import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { callerOf, needsOf } from "../../internal/model/access.ts";
import { inputOf } from "../../internal/model/input_pattern.ts";
import { type JobSpec, parseJobRequest } from "../../internal/model/job_request.ts";
import { LIMIT } from "../../internal/model/limits.ts";
import type { Event, Query } from "../../internal/scheduler/events.ts";
import { DEFAULT_SCHEDULER_CONFIG, newState, type State } from "../../internal/scheduler/state.ts";
import { step } from "../../internal/scheduler/step.ts";

/** What one request may hold a proxy or a leader for, in milliseconds of a processor. */
const HELD_MS = 50;
const TRIES = 5;

/** The least of some tries: what else this machine does is not the request's fault. */
function costMs(work: () => void): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < TRIES; i += 1) {
    const before = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1_000);
  }
  return least;
}

const many = <T>(count: number, one: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => one(i));
const object = (count: number, name: (i: number) => string, value: unknown = "x") =>
  Object.fromEntries(many(count, (i) => [name(i), value]));
const job = { mapper: "cat", reducer: "cat", data: "box" };
const step1 = { mapper: "a.py", reducer: "b.py" };

/** As bad as a body of 256 KiB can be, for each field: most are refused, which has to cost little too. */
const BODIES: Record<string, object> = {
  "data: alternatives": {
    ...job,
    data: many(1_000, () => `box/${"{a,b}".repeat(9)}${"x".repeat(190)}`),
  },
  "data: alternatives within bounds": {
    ...job,
    data: many(60, (i) => `box/${i}${"{a,b}".repeat(6)}${"x".repeat(200)}`),
  },
  "data: nested": { ...job, data: `box/${"{".repeat(500)}a${"}".repeat(500)}` },
  "data: stars": { ...job, data: many(250, (i) => `box/${i}${"*a".repeat(500)}`) },
  "data: long names": { ...job, data: many(240, (i) => `box/${i}/${"long/".repeat(200)}x`) },
  "data: entries": { ...job, data: many(40_000, () => "B/") },
  "data: wrong entries": { ...job, data: many(1_000, () => "box/{") },
  "data: numbers": { ...job, data: many(120_000, () => 0) },
  "data: lists": { ...job, data: many(80_000, () => []) },
  "env: numbers": { ...job, env: object(30_000, String, 0) },
  "conf: lists": { ...job, conf: object(25_000, String, []) },
  "files: numbers": { ...job, files: many(120_000, () => 0) },
  "steps: lists in conf": {
    data: "box",
    steps: many(50, () => ({ ...step1, conf: object(500, (i) => `c${i}`, []) })),
  },
  "steps: numbers in env": {
    data: "box",
    steps: many(50, () => ({ ...step1, env: object(500, (i) => `c${i}`, 0) })),
  },
  "env: names": { ...job, env: object(20_000, (i) => `!${i}`) },
  "env: values": { ...job, env: object(4_000, (i) => `e${i}`) },
  "conf: unknown": { ...job, conf: object(20_000, (i) => `u${i}`) },
  "conf: unknown within bounds": { ...job, conf: object(2_500, (i) => `u${i}`) },
  "conf: key fields": {
    ...job,
    conf: { "mapreduce.partition.keycomparator.options": "-k1,1nr ".repeat(4_000) },
  },
  files: { ...job, files: many(50_000, (i) => `f${i}`) },
  "files: long": { ...job, files: many(100, (i) => `${"f/".repeat(500)}${i}`) },
  mapper: { ...job, mapper: "a".repeat(250_000) },
  "mapper: quotes": { ...job, mapper: "a'".repeat(2_000) },
  partitioner: { ...job, partitioner: "a.".repeat(120_000) },
  name: { ...job, name: "n".repeat(250_000) },
  "unknown fields": { ...job, ...object(20_000, (i) => `u${i}`, 1) },
  "steps: many": { data: "box", steps: many(30_000, () => ({})) },
  "steps: what they share": {
    data: "box",
    env: object(1_500, (i) => `e${i}`, "0123456789"),
    files: many(100, (i) => `f${i}`),
    steps: many(50, () => step1),
  },
  "steps: what they share, within bounds": {
    data: "box",
    env: object(300, (i) => `e${i}`, "0123456789"),
    files: many(100, (i) => `f${i}`),
    steps: many(50, () => step1),
  },
  "steps: faults": {
    data: "box",
    steps: many(50, () => ({ ...step1, env: object(300, (i) => `!${i}`) })),
  },
};

const parsed = (body: string): JobSpec | undefined => {
  try {
    return parseJobRequest(JSON.parse(body));
  } catch {
    return undefined;
  }
};

describe("the worst of every field of a request", () => {
  for (const [what, body] of Object.entries(BODIES)) {
    const text = JSON.stringify(body);
    it(`${what}: is checked at once`, () => {
      assert.ok(text.length < LIMIT.bodyBytes * 2, `${text.length}`);
      const ms = costMs(() => parsed(text));
      assert.ok(ms < HELD_MS, `${ms} ms`);
    });
  }

  it("deep nesting is refused, not fallen into", () => {
    for (const field of ["x", "data", "steps", "env", "conf", "files"]) {
      const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
      const text = `{"mapper":"cat","data":"box","${field}":${deep}}`;
      const ms = costMs(() => assert.equal(parsed(text), undefined));
      assert.ok(ms < HELD_MS, `${field}: ${ms} ms`);
    }
  });

  it("what is accepted is told apart, sized up and matched at once", () => {
    const viewer = callerOf({ name: "a", places: many(100, (i) => `other-${i}`) });
    const name = `${"a".repeat(1_000)}/x`;
    for (const [what, body] of Object.entries(BODIES)) {
      const spec = parsed(JSON.stringify(body));
      if (spec === undefined) continue;
      const seen = costMs(() => needsOf(spec).every((need) => viewer.may(need.right, need)));
      assert.ok(seen < HELD_MS, `${what}: who may see it: ${seen} ms`);
      for (const text of spec.data.slice(0, 20)) {
        const ms = costMs(() => inputOf(text).matches(name));
        assert.ok(ms < HELD_MS, `${what}: a name against an entry: ${ms} ms`);
      }
    }
  });
});

describe("a leader with as many large jobs as it takes", () => {
  const accepted = Object.entries(BODIES).flatMap(([what, body]) => {
    const spec = parsed(JSON.stringify(body));
    return spec === undefined ? [] : [[what, spec] as const];
  });
  let clock = 0;
  const post = (state: State, event: object) => {
    clock += 1;
    return step(state, { ...event, atMs: clock, wallMs: clock } as Event);
  };
  const submit = (state: State, spec: JobSpec, i: number) => {
    const id = `20260101-000000-${String(i).padStart(6, "0")}`;
    const said = { kind: "submit", reply: 1, id, spec, owner: "", scripts: {} };
    return post(state, { ...said, idempotencyKey: `key ${i}` });
  };

  it("answers each question, and takes the next job, at once", () => {
    assert.ok(accepted.length >= 5);
    const state = newState(DEFAULT_SCHEDULER_CONFIG, 1);
    for (let i = 0; i < LIMIT.queuedJobs - 10; i += 1)
      submit(state, (accepted[i % accepted.length] as (typeof accepted)[number])[1], i);
    const viewer = ["alice-*", "dfs-scripts/alice", "dfs-dest/alice"];
    const page = { limit: LIMIT.page, after: "" };
    const list = { kind: "jobs" as const, active: false, state: undefined, name: "", ...page };
    const questions: Record<string, Query> = {
      jobs: { ...list, viewer: undefined },
      "jobs of a client": { ...list, viewer },
      "jobs by name": { ...list, viewer: undefined, name: "x".repeat(200) },
      counts: { kind: "counts", viewer: undefined },
      "counts of a client": { kind: "counts", viewer },
      job: { kind: "job", id: [...state.jobs.keys()].at(-1) ?? "" },
      workers: { kind: "workers", viewer: undefined, ...page },
    };
    for (const [what, query] of Object.entries(questions)) {
      const ms = costMs(() => post(state, { kind: "query", reply: 1, query }));
      assert.ok(ms < HELD_MS, `${what}: ${ms} ms`);
    }
    let i = LIMIT.queuedJobs;
    for (const [what, spec] of accepted) {
      const ms = costMs(() => submit(state, spec, i++));
      assert.ok(ms < HELD_MS, `another job, ${what}: ${ms} ms`);
      const reduce = { ...spec, phase: "reduce" as const, steps: [] };
      const found = costMs(() => submit(state, reduce, i++));
      assert.ok(found < HELD_MS, `a phase that looks for its other, ${what}: ${found} ms`);
    }
    const tick = costMs(() => post(state, { kind: "tick" }));
    assert.ok(tick < HELD_MS, `a tick: ${tick} ms`);
  });
});
