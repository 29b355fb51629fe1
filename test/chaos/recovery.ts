import type { FaultyCluster, LogLine } from "../support/faulty_cluster.ts";

type What = "leader-kill" | "leader-hand-over" | "worker-kill" | "worker-leave";

const TITLES: Record<What, string> = {
  "leader-kill": "leader SIGKILL to the successor's first grant",
  "leader-hand-over": "leader SIGTERM to the successor's first grant",
  "worker-kill": "worker SIGKILL to its tasks queued again",
  "worker-leave": "worker SIGTERM to its tasks queued again",
};

interface Mark {
  what: What;
  pid: number;
  wallMs: number;
}

/** All that the masters have logged, in order. */
export async function mastersLog(cluster: FaultyCluster): Promise<LogLine[]> {
  const masters = cluster.cluster.processes().filter(({ role }) => role === "master");
  const logs = await Promise.all(masters.map(({ name }) => cluster.log(name)));
  return logs.flat().toSorted((a, b) => a.time - b.time);
}

/** How long it took to recover, from what the leaders logged. */
export class RecoveryTimes {
  private readonly marks: Mark[] = [];
  private readonly cancelMs: number[] = [];
  /** Worker ids by pid. */
  private readonly workers = new Map<number, string>();
  /** Off while more than one thing goes wrong at a time: nobody could say what took how long. */
  measuring = true;

  knows(pid: number, worker: string): void {
    this.workers.set(pid, worker);
  }

  leaderKilled(pid: number): void {
    this.mark("leader-kill", pid);
  }

  leaderLeaves(pid: number): void {
    this.mark("leader-hand-over", pid);
  }

  workerKilled(pid: number): void {
    this.mark("worker-kill", pid);
  }

  workerLeaves(pid: number): void {
    this.mark("worker-leave", pid);
  }

  cancelled(tookMs: number): void {
    if (this.measuring) this.cancelMs.push(Math.round(tookMs));
  }

  private mark(what: What, pid: number): void {
    if (this.measuring) this.marks.push({ what, pid, wallMs: Date.now() });
  }

  /** @param lines what the masters have logged. @returns a table. */
  table(lines: LogLine[]): string[] {
    const rows = (Object.keys(TITLES) as What[]).map((what) => {
      const marks = this.marks.filter((mark) => mark.what === what);
      return row(
        TITLES[what],
        marks.flatMap((mark) => tookOf(mark, lines, this.workers) ?? []),
      );
    });
    return [...rows, row("cancel to the end of the job's last script", this.cancelMs)];
  }
}

function row(title: string, tookMs: number[]): string {
  const sorted = tookMs.toSorted((a, b) => a - b);
  const of = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  const figures = sorted.length === 0 ? "not seen" : `p50 ${of(0.5)} ms, p99 ${of(0.99)} ms`;
  return `${title.padEnd(48)} ${figures} (${sorted.length} times)`;
}

/** Later than this, it was something else. */
const WITHIN_MS = 30_000;

function tookOf(mark: Mark, lines: LogLine[], workers: Map<number, string>): number | undefined {
  const after = lines.filter(({ time }) => time >= mark.wallMs && time < mark.wallMs + WITHIN_MS);
  const end = mark.what.startsWith("leader")
    ? after.find(({ msg, pid }) => msg === "granted" && pid !== mark.pid)
    : after.find(({ msg, worker }) => msg === "attempt lost" && worker === workers.get(mark.pid));
  return end === undefined ? undefined : end.time - mark.wallMs;
}
