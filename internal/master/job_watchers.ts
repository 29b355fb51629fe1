import type { JobId } from "../model/ids.ts";

/** A watcher is told of mere progress at most this often, in milliseconds. */
const PROGRESS_MS = 100;
/** Without news it looks again after this long: progress alone rings no bell. */
const IDLE_MS = 2_000;

/** Who waits for news of which job. */
export class JobWatchers {
  private readonly bells = new Map<JobId, Set<Bell>>();

  /** Resolves when there may be news; @param signal, when somebody no longer waits. */
  async news(job: JobId, sinceMs: number, signal: AbortSignal): Promise<void> {
    const bell = new Bell(sinceMs);
    const bells = this.bells.get(job) ?? new Set();
    this.bells.set(job, bells);
    bells.add(bell);
    const stop = () => bell.ring();
    signal.addEventListener("abort", stop);
    try {
      if (!signal.aborted) await bell.rung;
    } finally {
      bell.ring();
      signal.removeEventListener("abort", stop);
      bells.delete(bell);
      if (bells.size === 0) this.bells.delete(job);
    }
  }

  /** @param urgent at once, not at the pace of progress. */
  wake(job: JobId, urgent: boolean): void {
    for (const bell of this.bells.get(job) ?? []) {
      if (urgent) bell.ring();
      else bell.ringSoon();
    }
  }
}

/** Rings once: at once, soon, or after a while by itself. */
class Bell {
  readonly rung: Promise<void>;
  private resolve = () => {};
  private readonly sinceMs: number;
  private readonly idle: NodeJS.Timeout;
  private soon: NodeJS.Timeout | undefined;

  constructor(sinceMs: number) {
    this.sinceMs = sinceMs;
    this.rung = new Promise((resolve) => {
      this.resolve = resolve;
    });
    this.idle = setTimeout(() => this.ring(), IDLE_MS);
  }

  ring(): void {
    clearTimeout(this.idle);
    clearTimeout(this.soon);
    this.resolve();
  }

  ringSoon(): void {
    const waitMs = Math.max(0, PROGRESS_MS - (performance.now() - this.sinceMs));
    this.soon ??= setTimeout(() => this.ring(), waitMs);
  }
}
