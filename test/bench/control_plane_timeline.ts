import type { WorkersReport } from "./control_plane_workers.ts";

/** Speed is looked at in windows of this length. */
const WINDOW_MS = 500;

/** How many tasks were settled when: what all processes of workers say, put together. */
export class Timeline {
  private readonly latest = new Map<number, WorkersReport>();
  private readonly points: { atMs: number; settled: number }[] = [];

  hear(process: number, report: WorkersReport): void {
    this.latest.set(process, report);
    this.points.push({ atMs: report.atMs, settled: this.settled });
  }

  get settled(): number {
    return this.sum("settled");
  }

  get sessions(): number {
    return this.sum("sessions");
  }

  get lost(): number {
    return this.sum("lost");
  }

  private sum(what: keyof WorkersReport): number {
    let sum = 0;
    for (const report of this.latest.values()) sum += report[what];
    return sum;
  }

  /** As of then, between two reports in proportion. */
  private settledAt(atMs: number): number {
    let before = this.points[0] ?? { atMs, settled: 0 };
    for (const point of this.points) {
      if (point.atMs >= atMs) {
        const share = (atMs - before.atMs) / Math.max(1, point.atMs - before.atMs);
        return before.settled + (point.settled - before.settled) * Math.max(0, share);
      }
      before = point;
    }
    return before.settled;
  }

  private rate(fromMs: number): number {
    const done = this.settledAt(fromMs + WINDOW_MS) - this.settledAt(fromMs);
    return (done * 1_000) / WINDOW_MS;
  }

  /** Tasks a second: the median of all whole windows in this time. */
  medianRate(fromMs: number, toMs: number): number {
    const rates: number[] = [];
    for (let at = fromMs; at + WINDOW_MS <= toMs; at += WINDOW_MS) rates.push(this.rate(at));
    return rates.toSorted((a, b) => a - b)[rates.length >> 1] ?? 0;
  }

  /** When more was first settled than at that moment. */
  settledAfter(atMs: number): number {
    const before = this.settledAt(atMs);
    return this.points.find((point) => point.atMs > atMs && point.settled > before)?.atMs ?? atMs;
  }

  /** The begin of the first window after that moment that is as fast as this; undefined: none is. */
  fastAgain(atMs: number, perSecond: number): number | undefined {
    const first = this.points.findIndex((point) => point.atMs >= atMs);
    if (first < 0) return undefined;
    const end = this.points.at(-1)?.atMs ?? 0;
    for (const { atMs: from } of this.points.slice(first)) {
      if (from + WINDOW_MS > end) return undefined;
      if (this.rate(from) >= perSecond) return from;
    }
    return undefined;
  }
}
