import type { Measured } from "./measure.ts";

/** A promise of a case: the ratio of two contestants' medians of one figure. */
export interface Mark {
  what: "wall" | "own" | "peak";
  of: string;
  /** The yardstick; none for figures that stand by themselves (MB, or own CPU per CPU of scripts). */
  to?: string;
  atMost: number;
}

export interface CaseResult {
  name: string;
  title: string;
  runs: Record<string, Measured[]>;
  marks: Mark[];
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

function spread(values: number[], digits: number): string {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return `${median(values).toFixed(digits)} (${least.toFixed(digits)}-${most.toFixed(digits)})`;
}

/** Of each round by itself: what disturbs one contestant of a round disturbs the other. */
function ratios(result: CaseResult, { what, of, to }: Mark): number[] {
  const ours = result.runs[of] ?? [];
  return ours.map((run, round) => {
    if (what === "peak") return run.peakMb;
    if (what === "own") return run.ownS / run.cpuS;
    return run.wallS / ((to && result.runs[to]?.[round]?.wallS) || Number.NaN);
  });
}

/** The table of a case, in Markdown. */
export function tableOf(result: CaseResult): string {
  const lines = [
    `### ${result.title}`,
    "",
    "| contestant | wall s | CPU s | of it ours | peak MB |",
    "|---|---|---|---|---|",
  ];
  for (const [name, runs] of Object.entries(result.runs)) {
    const wall = spread(
      runs.map(({ wallS }) => wallS),
      2,
    );
    const cpu = median(runs.map(({ cpuS, ownS }) => cpuS + ownS)).toFixed(2);
    const own = median(runs.map(({ ownS }) => ownS)).toFixed(2);
    const peak = median(runs.map((run) => run.peakMb)).toFixed(0);
    lines.push(`| ${name} | ${wall} | ${cpu} | ${own} | ${peak} |`);
  }
  lines.push("", ...result.marks.map((mark) => markLine(result, mark)), "");
  return lines.join("\n");
}

function markLine(result: CaseResult, mark: Mark): string {
  const values = ratios(result, mark);
  const value = median(values);
  const what = {
    wall: `${mark.of} / ${mark.to}`,
    own: `our CPU / the scripts', ${mark.of}`,
    peak: `peak of a process, MB, ${mark.of}`,
  }[mark.what];
  const digits = mark.what === "peak" ? 0 : 2;
  const met = value <= mark.atMost;
  const beyond = `missed by ${((value / mark.atMost - 1) * 100).toFixed(0)} %`;
  return `- ${what}: **${spread(values, digits)}**, at most ${mark.atMost}: ${met ? "met" : beyond}`;
}
