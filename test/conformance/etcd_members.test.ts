import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { EtcdCoordinator } from "../../internal/coordination/etcd/etcd_coordinator.ts";
import type { Leadership } from "../../internal/model/coordinator.ts";
import { MrError } from "../../internal/model/errors.ts";
import {
  type EtcdCluster,
  type MemberFault,
  unpackEtcd,
  useEtcdCluster,
} from "../support/etcd_cluster.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { etcdBinary } from "../support/servers.ts";

const SELF = { id: "me", address: "127.0.0.1:1", pid: 1 };
const TTL_MS = 3_000;
/** Longer than a lease: who lost it would know. */
const FAULT_MS = TTL_MS + 1_000;
const FAULTS: MemberFault[] = ["killed", "frozen", "cut"];

/** A leader that writes all the time, and counts its terms. */
class Busy implements AsyncDisposable {
  private readonly coordinator: EtcdCoordinator;
  private readonly stop = new AbortController();
  private readonly running: Promise<void>;
  terms = 0;
  commits = 0;

  constructor(address: string) {
    this.coordinator = new EtcdCoordinator({ address, ttlMs: TTL_MS });
    this.running = this.run();
  }

  private async run(): Promise<void> {
    while (!this.stop.signal.aborted) {
      const term = await this.coordinator.campaign(SELF, this.stop.signal);
      this.terms += 1;
      while (!term.over.aborted && !this.stop.signal.aborted) {
        await this.write(term);
        await delay(20);
      }
      await term.resign();
    }
  }

  private async write(term: Leadership): Promise<void> {
    try {
      await term.commit([{ key: "job/1/count", value: String(this.commits + 1) }]);
      this.commits += 1;
    } catch (error) {
      assert.ok(MrError.is(error, "unavailable") || MrError.is(error, "fenced"), String(error));
    }
  }

  /** The last count, read by somebody else. */
  async counted(): Promise<number> {
    for await (const { value } of this.coordinator.list("job/1/")) return Number(value);
    return 0;
  }

  async end(): Promise<void> {
    this.stop.abort();
    await this.running.catch((error) => assert.ok(MrError.is(error, "aborted"), String(error)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.coordinator.close();
  }
}

/** Breaks a member for longer than a lease. @returns how many terms that cost. */
async function fail(cluster: EtcdCluster, busy: Busy, member: number, fault: MemberFault) {
  const before = { terms: busy.terms, commits: busy.commits };
  await cluster.break(member, fault);
  await delay(FAULT_MS);
  await until("commits beside a member that fails", () => busy.commits > before.commits + 20);
  const counted = await busy.counted();
  assert.ok(counted >= before.commits, `${counted} of ${before.commits} commits are left`);
  await cluster.mend(member, fault);
  return busy.terms - before.terms;
}

/**
 * Until the others have chosen another leader of etcd's, for 1 to 2 s by default, it answers nobody:
 * each such election may cost a term.
 * @param thaw whether one more may be lost when the old one wakes up: etcd 3.4.23 then revokes leases
 *   that it takes for run out, though it leads no more.
 */
async function survives(binary: string, thaw: boolean): Promise<string> {
  await using cluster = await useEtcdCluster(binary);
  await using busy = new Busy(cluster.address);
  await until("commits", () => busy.commits > 20);
  let lost = 0;
  for (const fault of FAULTS) {
    // A machine so busy that somebody was not heard of in time is no fault of the member's.
    const followerCost = await leastOf(3, async () => {
      const follower = ((await cluster.raftLeader()) + 1) % 3;
      return fail(cluster, busy, follower, fault);
    });
    assert.ok(followerCost <= 0, `a follower ${fault} cost ${followerCost} terms each time`);
    let cost = 0;
    const beyond = await leastOf(3, async () => {
      const raftTerm = await cluster.raftTerm();
      cost = await fail(cluster, busy, await cluster.raftLeader(), fault);
      const elections = (await cluster.raftTerm()) - raftTerm;
      return cost - elections - (thaw && fault === "frozen" ? 1 : 0);
    });
    assert.ok(beyond <= 0, `etcd's leader ${fault} cost ${beyond} terms more than elections`);
    lost += cost;
  }
  await busy.end();
  // No copy of an older commit came late; the last one may have landed without a word of it.
  const behind = (await busy.counted()) - busy.commits;
  assert.ok(behind === 0 || behind === 1, `${behind} commits that nobody knows of`);
  return `${busy.commits} commits; of ${FAULTS.length} faults of the member that led, ${lost} cost a term`;
}

/** Of so many tries, unless one comes to nothing before. */
async function leastOf(tries: number, work: () => Promise<number>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < tries && least > 0; i += 1) least = Math.min(least, await work());
  return least;
}

/** A watch stands on one member only: whichever that is, it must go on from another. */
async function tellsOfChanges(): Promise<void> {
  await using cluster = await useEtcdCluster();
  const open = () => new EtcdCoordinator({ address: cluster.address, ttlMs: TTL_MS });
  const [a, b] = [open(), open()];
  let hints = 0;
  using _watch = b.watchLeader(() => {
    hints += 1;
  });
  let term = await a.campaign(SELF, new AbortController().signal);
  for (const member of [0, 1, 2]) {
    await cluster.break(member, "frozen");
    const before = hints;
    await until("a hint past a frozen member", async () => {
      // Who waits for a leader asks now and then, too: that is how it learns which member fails.
      await b.leader().catch(() => undefined);
      await term.resign();
      term = await a.campaign(SELF, new AbortController().signal);
      return hints > before;
    });
    await cluster.mend(member, "frozen");
  }
  await term.resign();
  for (const coordinator of [a, b]) await coordinator.close();
}

describe("an etcd of three, one member of which fails", () => {
  it("keeps its leader, and takes commits all the time", async (t) => {
    t.diagnostic(await survives(etcdBinary(), true));
  });

  it("tells of changes of leader", tellsOfChanges);

  it("keeps its leader in the version that the manifests have, 3.5", async (t) => {
    await using folder = await scratchFolder("etcd-3.5");
    const newer = await unpackEtcd("trixie", folder.path);
    if (typeof newer === "string") return t.skip(newer);
    t.diagnostic(await survives(newer.path, false));
  });
});
