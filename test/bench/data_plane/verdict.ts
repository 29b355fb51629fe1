import type { CaseResult, Round, Sample, Target } from "./bench_case.ts";
import { median, percentile, type Spread, spread } from "./stats.ts";

const MB = 1_000_000;

/** What became of a target; no value: one of the two was not there. */
export interface Verdict {
  text: string;
  value: number | undefined;
  max: number;
  met: boolean;
}

export function samplesOf(rounds: Round[], name: string): Sample[] {
  return rounds.flatMap((round) => round.get(name) ?? []);
}

/** Wall over wall, or processors' time over processors' time, in each round that both were in. */
export function ratiosOf(
  rounds: Round[],
  name: string,
  to: string,
  of: (sample: Sample) => number = ({ wallMs }) => wallMs,
): Spread | undefined {
  const ratios = rounds.flatMap((round) => {
    const [mine, theirs] = [round.get(name), round.get(to)];
    return mine === undefined || theirs === undefined ? [] : of(mine) / of(theirs);
  });
  return ratios.length === 0 ? undefined : spread(ratios);
}

/** Of everything that ran, the scripts and all around them. */
export function allCpuMs({ scriptsCpuMs, ownCpuMs }: Sample): number {
  return scriptsCpuMs + ownCpuMs;
}

/** CPU time of proxy, master and worker over that of the scripts. */
export function ownShareOf(samples: Sample[]): number {
  return median(samples.map(({ ownCpuMs, scriptsCpuMs }) => ownCpuMs / scriptsCpuMs));
}

export function verdictOf({ prepared, rounds }: CaseResult, target: Target): Verdict {
  const { value, text } = judge(
    prepared.contestants.map(({ name }) => name),
    rounds,
    target,
  );
  const { max } = target;
  return { text, value, max, met: value !== undefined && value <= max };
}

function judge(present: string[], rounds: Round[], target: Target) {
  const { kind, of, max } = target;
  const samples = samplesOf(rounds, of);
  if (kind === "wall") {
    const ratio = ratiosOf(rounds, of, target.to)?.median;
    const absent = present.includes(target.to) ? "" : ` (${target.to} is not installed)`;
    return { value: ratio, text: `${of} <= ${max.toFixed(2)} x ${target.to}${absent}` };
  }
  if (kind === "ownCpu")
    return { value: ownShareOf(samples), text: `${of}: our CPU <= ${max} of the scripts'` };
  if (kind === "workerPeakMb") {
    const peaks = samples.map(({ peaks }) => (peaks?.worker ?? Number.NaN) / MB);
    return { value: Math.max(...peaks), text: `${of}: worker's peak <= ${max} MB` };
  }
  const walls = samples.map(({ wallMs }) => wallMs);
  const p99 = percentile(walls, 0.99).toFixed(0);
  return { value: median(walls), text: `${of}: p50 <= ${max} ms (p99 is ${p99} ms)` };
}
