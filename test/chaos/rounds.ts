import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import type { JobJson } from "../../cmd/mr/client.ts";
import { messageOf } from "../../internal/model/errors.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { AzureStore } from "../../internal/storage/azure/azure_store.ts";
import { seeded } from "../support/corpus.ts";
import { type FaultyCluster, TIMES, useFaultyCluster } from "../support/faulty_cluster.ts";
import { JOB_KINDS, KnownJobs } from "../support/known_jobs.ts";
import { until } from "../support/processes.ts";
import { between, type Chaos, FAULTS, pick } from "./faults.ts";
import { History } from "./history.ts";
import { mastersLog, RecoveryTimes } from "./recovery.ts";

export interface ChaosOptions {
  seed: number;
  /** The first round's number: a round is made from the seed and its number alone. */
  first: number;
  rounds: number;
  /** Names of faults to choose from. */
  faults: string[];
  say: (line: string) => void;
  signal?: AbortSignal;
}

export interface ChaosResult {
  rounds: number;
  jobs: number;
  /** What was wrong, a line each; none: all is well. */
  faults: string[];
  /** How long recovery took. */
  times: string[];
}

/** These alone in a round are timed. */
const TIMED = ["leader-kill", "leader-hand-over", "worker-kill", "worker-leave", "cancel"];
const JOB_DEADLINE_MS = 120_000;
/** Objects that are there so long after their job's end are orphans. */
const ORPHAN_MS = 60_000;

/** Rounds of jobs with known answers, in each of which something goes wrong. */
export class ChaosRun {
  private readonly options: ChaosOptions;
  private readonly faults: string[] = [];
  private readonly accepted: string[] = [];
  private readonly succeeded = new Set<string>();
  private readonly endedMs = new Map<string, number>();

  constructor(options: ChaosOptions) {
    this.options = options;
  }

  async run(): Promise<ChaosResult> {
    const { seed, first, rounds, signal } = this.options;
    await using cluster = await useFaultyCluster({ masters: 3, workers: 4, remote: true });
    const known = await KnownJobs.prepare(cluster.client, { seed, lines: 400 });
    const history = await History.record(cluster.parts.etcd?.address ?? "");
    const store = new AzureStore(cluster.parts.azurite?.connectionString ?? "");
    const times = new RecoveryTimes();
    let done = 0;
    for (let round = first; round < first + rounds && !signal?.aborted; round += 1) {
      const random = seeded(seed * 100_003 + round);
      const say = (line: string) => this.options.say(`round ${round}: ${line}`);
      const chaos: Chaos = {
        cluster,
        history,
        store,
        times,
        jobs: [],
        cancelled: new Set(),
        random,
        say,
      };
      await this.oneRound(chaos, known, round);
      done += 1;
    }
    await this.checkOrphans(store);
    await history.upToDate();
    const log = await mastersLog(cluster);
    const granted = log.flatMap((line) => (line.msg === "granted" ? String(line.attempt) : []));
    this.faults.push(...history.check(this.accepted, granted));
    await history.close();
    const table = times.table(log);
    const ttl = `leader's time to live ${TIMES.MR_LEADER_TTL_MS} ms, lease ${TIMES.MR_LEASE_MS} ms`;
    return {
      rounds: done,
      jobs: this.accepted.length,
      faults: this.faults,
      times: [...table, ttl],
    };
  }

  private async oneRound(chaos: Chaos, known: KnownJobs, round: number): Promise<void> {
    const { cluster, random, say } = chaos;
    const startMs = performance.now();
    const watching = this.watchParts(chaos);
    try {
      await this.calm(chaos);
      const names = this.chooseFaults(random);
      const timed = names.length === 1 && TIMED.includes(names[0] ?? "");
      chaos.times.measuring = timed;
      const jobs = Array.from({ length: timed ? 1 : between(chaos, 1, 3) }, () => {
        const maps = timed ? 28 : between(chaos, 2, 14);
        const sleep = timed ? 0.25 : between(chaos, 0, 4) / 10;
        const kind = timed ? "nonces" : pick(chaos, JOB_KINDS);
        return known.request(kind, { maps, reduces: between(chaos, 1, 9), sleep });
      });
      const submitted = jobs.map((job) => this.submit(chaos, job));
      await Promise.all(submitted);
      await delay(between(chaos, 100, timed ? 900 : 2_000));
      await Promise.all(
        names.map(async (name, i) => {
          await delay(i * between(chaos, 0, 1_500));
          await FAULTS[name]?.(chaos);
        }),
      );
      for (const id of chaos.jobs) await this.finish(chaos, known, id);
      if (names.join() === "leader-hand-over") await this.checkHandOver(chaos);
      say(
        `${names.join(", ")}: ${chaos.jobs.length} jobs, ${Math.round(performance.now() - startMs)} ms`,
      );
    } catch (error) {
      const { seed } = this.options;
      this.faults.push(`round ${round} (--seed ${seed} --round ${round}): ${messageOf(error)}`);
      say(`FAILED: ${(error as Error).stack}`);
      await this.repair(cluster);
    } finally {
      await watching.stop();
    }
  }

  /** Half of the rounds time one thing; the others are as bad as it gets. */
  private chooseFaults(random: () => number): string[] {
    const { faults } = this.options;
    const timed = TIMED.filter((name) => faults.includes(name));
    if (timed.length > 0 && random() < 0.5) return [pick({ random }, timed)];
    return Array.from({ length: 1 + Math.floor(random() * 3) }, () => pick({ random }, faults));
  }

  /** All processes are there and connected. */
  private async calm({ cluster, times }: Chaos): Promise<void> {
    const { workers } = await until(
      "a whole cluster",
      async () => {
        const answer = await cluster.client
          .json<{ workers: { id: string; pid: number; state: string }[] }>("/workers")
          .catch(() => undefined);
        const pids = cluster.pids("worker");
        const there = answer?.workers.filter(({ state }) => state !== "away").map(({ pid }) => pid);
        const whole = cluster.pids("master").length === 3 && pids.length === 4;
        return whole && pids.every((pid) => there?.includes(pid)) && answer;
      },
      60_000,
    );
    for (const { pid, id } of workers) times.knows(pid, id);
  }

  /** Repeats the request until it is answered, as a client would: the key makes that safe. */
  private async submit(chaos: Chaos, request: object): Promise<void> {
    const key = { "idempotency-key": `key-${chaos.random()}` };
    const id = await until(
      "a job accepted",
      () => chaos.cluster.submit(request, key).catch(() => undefined),
      60_000,
    );
    chaos.jobs.push(id);
    this.accepted.push(id);
  }

  private async finish(
    { cluster, store, say, cancelled }: Chaos,
    known: KnownJobs,
    id: string,
  ): Promise<void> {
    const job = await cluster.ended(id, JOB_DEADLINE_MS);
    this.endedMs.set(id, performance.now());
    if (cancelled.has(id) && job.state === "cancelled") {
      const parts = await visibleParts(store, id);
      assert.deepEqual(parts, [], `${id} was cancelled and has parts`);
      return;
    }
    await retried(() => known.check(job));
    this.succeeded.add(id);
    assert.ok((await visible(store, id)).includes(`${id}/_SUCCESS`), `${id} has no _SUCCESS`);
    this.checkCharges(job);
    say(`${id} ${job.name}: right (${job.attempts.failed} failed, ${job.attempts.lost} lost)`);
  }

  /** None of these scripts ever fails. */
  private checkCharges(job: JobJson): void {
    assert.equal(job.attempts.failed, 0, `${job.id}: a failure was charged to the script`);
  }

  private async checkHandOver({ cluster, jobs }: Chaos): Promise<void> {
    for (const id of jobs) {
      const { attempts } = await cluster.job(id);
      assert.equal(attempts.lost, 0, `${id}: a planned hand-over lost attempts`);
    }
  }

  /** H4: looks for parts all the time while the jobs run. */
  private watchParts(chaos: Chaos): { stop: () => Promise<void> } {
    let over = false;
    const watching = (async () => {
      while (!over) {
        for (const id of chaos.jobs) {
          if ((await visibleParts(chaos.store, id)).length === 0) continue;
          await chaos.history.upToDate();
          if (!chaos.history.isCommitting(id))
            this.faults.push(`H4: parts of ${id} were visible before it was committing`);
        }
        await delay(150);
      }
    })();
    watching.catch((error) => this.faults.push(`H4 was not watched: ${messageOf(error)}`));
    return {
      stop: async () => {
        over = true;
        await watching.catch(() => undefined);
      },
    };
  }

  private async checkOrphans(store: ObjectStore): Promise<void> {
    const last = Math.max(0, ...this.endedMs.values());
    this.options.say("waiting a minute for what the last jobs may have left behind");
    await delay(Math.max(0, last + ORPHAN_MS - performance.now()), undefined, {
      signal: this.options.signal,
    }).catch(() => undefined);
    for (const id of this.accepted)
      for await (const { name } of store.list("dfs-intermediate", id)) {
        // What the steps of a cancelled job have made can be gone on from.
        const isKept = !this.succeeded.has(id) && name.startsWith(`${id}.`);
        if (!isKept || name.includes("/map/")) this.faults.push(`${name} is an orphan`);
      }
  }

  /** After a failed round, so that the next one starts from a sound cluster. */
  private async repair({ parts, points }: FaultyCluster): Promise<void> {
    for (const link of [...parts.etcdLinks, ...parts.masterLinks]) link.mend();
    if (parts.storage !== undefined) parts.storage.rule = () => undefined;
    points.goaway(false);
    points.setClock(0);
  }
}

async function visible(store: ObjectStore, id: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of store.list("dfs-dest", `${id}/`)) names.push(name);
  return names;
}

async function visibleParts(store: ObjectStore, id: string): Promise<string[]> {
  if (!(await store.containerExists("dfs-dest"))) return [];
  return (await visible(store, id)).filter((name) => name.includes("/part-"));
}

/** Reading the output goes through the proxies and their faults too. */
async function retried(body: () => Promise<void>): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await body();
    } catch (error) {
      if (error instanceof assert.AssertionError || tries === 20) throw error;
      await delay(200);
    }
  }
}
