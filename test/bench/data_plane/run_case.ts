import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { scratchFolder } from "../../support/processes.ts";
import type {
  BenchCase,
  CaseResult,
  Contestant,
  Outcome,
  Prepared,
  Round,
  Sample,
  Site,
} from "./bench_case.ts";
import { ClusterUnderTest } from "./cluster_under_test.ts";
import { disturbanceOf } from "./disturbance.ts";
import { checkParts } from "./expected.ts";
import { OthersWatch } from "./processors.ts";
import { runShell } from "./shell_run.ts";

const execute = promisify(execFile);

/** Runs the contestants of a case in turn, each result checked before its time counts. */
export async function runCase(
  benchCase: BenchCase,
  site: Site,
  cpus: number[],
  say: (line: string) => void,
): Promise<CaseResult> {
  const { name } = benchCase;
  const prepared = await benchCase.prepare(site);
  return ClusterUnderTest.with(async (cluster) => {
    await cluster.putScripts(site.scripts);
    for (const [container, paths] of Object.entries(prepared.inputs))
      await cluster.link(container, paths);
    const runner = new CaseRunner(name, prepared, cluster, cpus);
    await runner.round();
    say(`${name}: warm`);
    const { rounds, disturbances } = await runner.rounds(site.sizes.repeats, (line) =>
      say(`${name}: ${line}`),
    );
    return { name, prepared, rounds, disturbances };
  });
}

class CaseRunner {
  private readonly name: string;
  private readonly prepared: Prepared;
  private readonly cluster: ClusterUnderTest;
  private readonly cpus: number[];

  constructor(name: string, prepared: Prepared, cluster: ClusterUnderTest, cpus: number[]) {
    this.name = name;
    this.prepared = prepared;
    this.cluster = cluster;
    this.cpus = cpus;
  }

  async rounds(repeatsMax: number, say: (line: string) => void) {
    const { contestants, yardsticks, brief } = this.prepared;
    const rounds: Round[] = [];
    const disturbances: string[] = [];
    let repeats = 0;
    while (rounds.length < this.prepared.rounds) {
      const round = await this.round();
      const trouble = brief ? undefined : disturbanceOf(round, rounds, yardsticks[0]);
      const isKept = trouble === undefined || repeats === repeatsMax;
      const what = `round ${rounds.length + 1} of ${this.prepared.rounds}`;
      const verdict = `${isKept ? "kept although" : "repeated:"} ${trouble}`;
      if (trouble !== undefined) disturbances.push(`${what} ${verdict}`);
      if (!brief) say(`${what}: ${wallsOf(round)}${trouble ? ` (${verdict})` : ""}`);
      if (isKept) rounds.push(round);
      else repeats += 1;
    }
    const last = rounds.at(-1);
    for (const contestant of contestants)
      if (contestant.once) last?.set(contestant.name, await this.sample(contestant));
    return { rounds, disturbances };
  }

  /** Everybody's turn, but for those that have only one. */
  async round(): Promise<Round> {
    const round: Round = new Map();
    for (const contestant of this.prepared.contestants)
      if (!contestant.once) round.set(contestant.name, await this.sample(contestant));
    return round;
  }

  private async sample(contestant: Contestant): Promise<Sample> {
    try {
      if (!this.prepared.brief) await execute("sync");
      await using folder = await scratchFolder("bench-run");
      const pids = this.cluster.members.map(({ pid }) => pid);
      const others = new OthersWatch(this.cpus, pids);
      const outcome =
        contestant.kind === "job"
          ? await this.cluster.run(contestant.request)
          : await runScript(contestant.script, folder.path);
      const othersCores = others.cores();
      await checkParts(outcome.parts, contestant.expected);
      await outcome.discard();
      return { ...outcome.sample, othersCores };
    } catch (error) {
      throw new Error(`${this.name}, ${contestant.name}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

async function runScript(script: string, folder: string): Promise<Outcome> {
  const { wallMs, cpuMs, peakBytes } = await runShell(script, folder);
  const names = (await readdir(folder)).filter((name) => name.startsWith("part-"));
  return {
    sample: { wallMs, scriptsCpuMs: cpuMs, ownCpuMs: 0, peakBytes },
    parts: names.toSorted().map((name) => join(folder, name)),
    discard: async () => undefined, // The folder is removed by its owner.
  };
}

function wallsOf(round: Round): string {
  return [...round]
    .map(([name, { wallMs }]) => `${name} ${(wallMs / 1_000).toFixed(2)}`)
    .join(", ");
}
