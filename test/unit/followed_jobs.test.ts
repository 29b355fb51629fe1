import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FollowedJobs, type Line } from "../../internal/http/followed_jobs.ts";
import { MrError } from "../../internal/model/errors.ts";
import type { JobState, JobView } from "../../internal/model/job.ts";
import { NO_SPEC } from "../../internal/model/job_request.ts";
import { until } from "../support/processes.ts";

const NONE = { done: 0, total: 0, running: 0, bytesDone: 0, bytesTotal: 0, records: 0 };
const view = (id: string, state: JobState, submittedAtMs: number): JobView => ({
  id,
  state,
  spec: NO_SPEC,
  map: NONE,
  owner: "",
  shuffle: NONE,
  reduce: NONE,
  submittedAtMs,
  startedAtMs: 0,
  finishedAtMs: 0,
  counters: {},
  output: "",
  error: undefined,
  lastError: undefined,
  attemptsFailed: 0,
  attemptsLost: 0,
  badRecords: 0,
  steps: [],
});

/** A leader that is told what to tell. */
class Leader {
  readonly asked: { id: string; signal: AbortSignal; views: (JobView | Error)[] }[] = [];

  async *watch(id: string, signal: AbortSignal): AsyncIterable<JobView> {
    const views: (JobView | Error)[] = [];
    this.asked.push({ id, signal, views });
    while (true) {
      const next = await until("a view", () => views.shift() ?? (signal.aborted && "gone"));
      if (next === "gone") return;
      if (next instanceof Error) throw next;
      yield next;
      if (next.state === "succeeded") return;
    }
  }
}

const stay = new AbortController().signal;

describe("followers of one job", () => {
  it("are told by one question to the leader, each all that is new to him", async () => {
    const leader = new Leader();
    const followed = new FollowedJobs(leader);
    const followers = Array.from({ length: 1_500 }, () => followed.follow("a", stay));
    const firsts = followers.map((each) => each.next());
    leader.asked[0]?.views.push(view("a", "map", 1));
    const told = await Promise.all(firsts);
    assert.equal(leader.asked.length, 1);
    // The very same text, not one that is equal.
    assert.equal(new Set(told.map(({ value }) => value)).size, 1);
    const slow = followed.follow("a", stay);
    await slow.next();
    for (const at of [2, 3]) {
      const next = followers.map((each) => each.next());
      leader.asked[0]?.views.push(view("a", "map", at));
      for (const { value } of await Promise.all(next))
        assert.match((value as Line).json, new RegExp(`00${at}Z"`));
    }
    assert.match(((await slow.next()).value as Line).json, /003Z"/);
    const late = followed.follow("a", stay);
    assert.match(((await late.next()).value as Line).json, /003Z"/);
    leader.asked[0]?.views.push(view("a", "succeeded", 4));
    for (const each of [...followers, slow, late]) {
      assert.equal(((await each.next()).value as Line).isLast, true);
      assert.equal((await each.next()).done, true);
    }
    assert.equal(leader.asked.length, 1);
  });

  it("leave nothing behind: whoever goes, and the last of them", async () => {
    const leader = new Leader();
    const followed = new FollowedJobs(leader);
    const [one, other] = [new AbortController(), new AbortController()];
    const left = assert.rejects(followed.follow("a", one.signal).next(), { name: "AbortError" });
    const first = followed.follow("a", other.signal);
    const waits = first.next();
    one.abort();
    await left;
    assert.equal(leader.asked[0]?.signal.aborted, false);
    leader.asked[0]?.views.push(view("a", "map", 1));
    assert.equal((await waits).done, false);
    await first.return();
    assert.equal(leader.asked[0]?.signal.aborted, true);
    const anew = followed.follow("a", stay).next();
    leader.asked[1]?.views.push(view("a", "succeeded", 2));
    assert.equal((await anew).done, false);
  });

  it("hear of it when the leader cannot be asked, and may ask again", async () => {
    const leader = new Leader();
    const followed = new FollowedJobs(leader);
    const both = [followed.follow("a", stay), followed.follow("a", stay)].map((each) =>
      assert.rejects(each.next(), (error) => MrError.is(error, "unavailable")),
    );
    leader.asked[0]?.views.push(new MrError("unavailable", "no leader"));
    await Promise.all(both);
    const again = followed.follow("a", stay).next();
    leader.asked[1]?.views.push(view("a", "succeeded", 2));
    assert.equal((await again).done, false);
  });
});
