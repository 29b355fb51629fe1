import { MrError, messageOf } from "../../model/errors.ts";
import type { Endpoint } from "./endpoint.ts";
import { isMembersOwn } from "./failures.ts";

/** When all have failed, the next is asked after so long: a new leader of etcd's is there, or a connection. */
const PAUSE_MS = 100;

export interface Limits {
  /** Wall clock, in milliseconds. */
  deadline: number;
  /** A member that has not answered after so long is overtaken by the next. */
  hedgeMs: number;
}

/**
 * One call, asked of one member after the other until one answers; a refusal is an answer, too. Who
 * has been silent is asked again: while etcd has no leader of its own, what a member passes on to
 * the dead one is lost, and nobody is told.
 */
export class Attempt<T> {
  readonly answer: Promise<T>;
  private readonly ask: (member: Endpoint) => Promise<T>;
  private readonly members: () => Endpoint[];
  private readonly limits: Limits;
  /** To be asked in this round. */
  private queue: Endpoint[];
  private rounds = 1;
  private readonly silent = new Set<Endpoint>();
  private open = 0;
  private readonly failures = new Map<Endpoint, string>();
  private timer: NodeJS.Timeout | undefined;
  private ended = false;
  private resolve!: (value: T) => void;
  private reject!: (error: unknown) => void;

  /** @param members several, the best first. */
  constructor(ask: (member: Endpoint) => Promise<T>, members: () => Endpoint[], limits: Limits) {
    this.ask = ask;
    this.members = members;
    this.limits = limits;
    this.queue = [...members()];
    this.answer = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.next();
  }

  private next(): void {
    if (this.queue.length === 0) this.beginRound();
    const member = this.queue.shift() as Endpoint;
    this.nextAfter((this.limits.hedgeMs * (this.rounds + 1)) / 2);
    this.silent.add(member);
    this.open += 1;
    this.ask(member).then(
      (value) => this.succeeded(member, value),
      (error) => this.failed(member, error),
    );
  }

  /** Of those who are silent, if there are any, for the others have failed; the one longest silent last. */
  private beginRound(): void {
    this.rounds += 1;
    this.queue = this.silent.size > 0 ? [...this.silent].reverse() : [...this.members()];
  }

  private nextAfter(ms: number): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (Date.now() + ms < this.limits.deadline) this.timer = setTimeout(() => this.next(), ms);
  }

  private succeeded(member: Endpoint, value: T): void {
    this.open -= 1;
    // Too late: another was faster, though it was asked later.
    if (this.ended) return;
    this.silent.delete(member);
    member.succeeded();
    for (const other of this.silent) other.failed("slower than the next");
    this.end(() => this.resolve(value));
  }

  private failed(member: Endpoint, error: unknown): void {
    this.open -= 1;
    this.silent.delete(member);
    const isOwn = isMembersOwn(error);
    if (isOwn) member.failed(messageOf(error));
    if (this.ended) return;
    if (!isOwn) return this.end(() => this.reject(error));
    this.failures.set(member, member.describe(error));
    if (this.queue.length > 0) this.next();
    else if (this.open === 0) this.nextAfter(PAUSE_MS);
    if (this.open === 0 && this.timer === undefined) this.end(() => this.reject(this.failure()));
  }

  private failure(): MrError {
    return new MrError("unavailable", `etcd: ${[...this.failures.values()].join("; ")}`);
  }

  private end(settle: () => void): void {
    this.ended = true;
    clearTimeout(this.timer);
    settle();
  }
}
