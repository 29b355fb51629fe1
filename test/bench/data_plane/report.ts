import { arch, cpus, totalmem } from "node:os";
import type { CaseResult } from "./bench_case.ts";
import type { Settings } from "./settings.ts";
import { median, type Spread, spread } from "./stats.ts";
import { allCpuMs, ownShareOf, ratiosOf, samplesOf, type Verdict, verdictOf } from "./verdict.ts";

const MB = 1_000_000;

/** The table of a case, and what became of its targets. */
export function tableOf(result: CaseResult): string {
  const { name, prepared, rounds, disturbances } = result;
  const { title, yardsticks, contestants, notes = [] } = prepared;
  const head = ["contestant", "wall s", ...yardsticks.map((other) => `x ${other}`)];
  const rows = contestants.map((contestant) => rowOf(result, contestant.name));
  if (yardsticks[0] !== undefined) head.push(`CPU x ${yardsticks[0]}`);
  const table = aligned([[...head, "CPU s of scripts", "CPU s of ours", "peak MB"], ...rows]);
  const verdicts = prepared.targets.map((target) => `  ${line(verdictOf(result, target))}\n`);
  return [
    `\n${name}: ${title}; ${rounds.length} rounds\n`,
    table,
    ...verdicts,
    ...[...notes, ...disturbances].map((note) => `  note: ${note}\n`),
  ].join("");
}

function rowOf({ prepared, rounds }: CaseResult, name: string): string[] {
  const samples = samplesOf(rounds, name);
  const isJob = samples.some(({ peaks }) => peaks !== undefined);
  const share = ownShareOf(samples);
  const ownS = median(samples.map(({ ownCpuMs }) => ownCpuMs)) / 1_000;
  const ratios = prepared.yardsticks.map((other) => {
    const ratio = other === name ? undefined : ratiosOf(rounds, name, other);
    return ratio === undefined ? "" : spreadText(ratio, 2);
  });
  const [first] = prepared.yardsticks;
  if (first !== undefined) {
    const ratio = first === name ? undefined : ratiosOf(rounds, name, first, allCpuMs);
    ratios.push(ratio === undefined ? "" : ratio.median.toFixed(2));
  }
  return [
    name,
    spreadText(spread(samples.map(({ wallMs }) => wallMs / 1_000)), prepared.brief ? 3 : 2),
    ...ratios,
    (median(samples.map(({ scriptsCpuMs }) => scriptsCpuMs)) / 1_000).toFixed(2),
    isJob ? `${ownS.toFixed(2)}${Number.isFinite(share) ? ` (${percent(share)})` : ""}` : "",
    (Math.max(...samples.map(({ peakBytes }) => peakBytes)) / MB).toFixed(0),
  ];
}

function line({ text, value, max, met }: Verdict): string {
  if (value === undefined) return `not measured: ${text}`;
  const by = Math.abs(value / max - 1);
  const measured = value < 10 ? value.toFixed(2) : value.toFixed(0);
  return `${met ? "met" : "MISSED"}: ${text}; it is ${measured}, ${percent(by)} ${met ? "below" : "above"}`;
}

/** All targets of all cases in a few lines: what was missed, by name. */
export function summaryOf(results: CaseResult[], quick: boolean): string {
  const all = results.flatMap((result) =>
    result.prepared.targets.map((target) => ({
      ...verdictOf(result, target),
      name: result.name,
    })),
  );
  const measured = all.filter(({ value }) => value !== undefined);
  const missed = measured.filter(({ met }) => !met);
  const hint = quick
    ? " (the targets are for the full sizes: quick figures are an orientation)"
    : "";
  const lines = missed.map((verdict) => `  ${verdict.name}: ${line(verdict)}\n`);
  return `\ntargets: ${measured.length - missed.length} of ${measured.length} met${hint}\n${lines.join("")}`;
}

/** All raw figures. */
export function jsonOf(results: CaseResult[], settings: Settings, usedCpus: number[]): string {
  const cases = results.map((result) => ({
    name: result.name,
    title: result.prepared.title,
    notes: result.prepared.notes ?? [],
    disturbances: result.disturbances,
    rounds: result.rounds.map((round) => Object.fromEntries(round)),
    targets: result.prepared.targets.map((target) => ({ ...target, ...verdictOf(result, target) })),
  }));
  const machine = {
    cpu: cpus()[0]?.model,
    arch: arch(),
    memoryBytes: totalmem(),
    node: process.version,
    usedCpus,
  };
  const { quick, sizes } = settings;
  return `${JSON.stringify({ at: new Date().toISOString(), machine, quick, sizes, cases }, null, 1)}\n`;
}

function spreadText({ median, min, max }: Spread, digits: number): string {
  return `${median.toFixed(digits)} (${min.toFixed(digits)}-${max.toFixed(digits)})`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/** The first column to the left, the others to the right. */
function aligned(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const text = (cell: string, i: number) =>
    i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0);
  return rows.map((row) => `  ${row.map(text).join("  ")}\n`).join("");
}
