import assert from "node:assert/strict";
import type { MasterMessage, WorkerMessage } from "../../internal/model/session.ts";

/**
 * Observes W1 from outside an agent: what it said and when, by its own clock, and
 * what was acknowledged of that, tell how long each of its scripts may run.
 */
export class LeaseWatch {
  /** Scripts that run and were not told to stop: when their lease ends. */
  private readonly ends = new Map<string, number>();
  private helloMs = 0;
  private heardMs = 0;
  private leaseMs = 0;
  private readonly beats = new Map<number, { sentMs: number; attempts: string[] }>();

  said(message: WorkerMessage, nowMs: number): void {
    if (message.kind === "hello") this.helloMs = nowMs;
    if (message.kind !== "heartbeat") return;
    const attempts = message.attempts.map(({ attempt }) => attempt);
    this.beats.set(message.seq, { sentMs: nowMs, attempts });
  }

  heard(message: MasterMessage): void {
    if (message.kind === "welcome") {
      this.leaseMs = message.leaseMs;
      // Hello names every attempt.
      this.renew(this.helloMs, [...this.ends.keys()]);
    } else if (message.kind === "renewed") {
      const beat = this.beats.get(message.seq);
      if (beat !== undefined) this.renew(beat.sentMs, beat.attempts);
      this.beats.delete(message.seq);
    }
  }

  private renew(sentMs: number, attempts: string[]): void {
    this.heardMs = Math.max(this.heardMs, sentMs);
    for (const attempt of attempts) {
      const endMs = this.ends.get(attempt);
      if (endMs !== undefined) this.ends.set(attempt, Math.max(endMs, sentMs + this.leaseMs));
    }
  }

  started(attempt: string): void {
    this.ends.set(attempt, this.heardMs + this.leaseMs);
  }

  /** It ended, or was told to stop. */
  ended(attempt: string): void {
    this.ends.delete(attempt);
  }

  /** After a tick, in which whatever is over had to be stopped. */
  check(nowMs: number): void {
    for (const [attempt, endMs] of this.ends)
      assert.ok(
        nowMs < endMs,
        `W1: ${attempt} runs ${Math.round(nowMs - endMs)} ms past its lease`,
      );
  }
}
