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

/** One call, asked of one member after the other until one answers; a refusal is an answer, too. */
export class Attempt<T> {
  readonly answer: Promise<T>;
  private readonly ask: (member: Endpoint) => Promise<T>;
  private readonly members: () => Endpoint[];
  private readonly limits: Limits;
  /** To be asked for the first time. */
  private readonly fresh: Endpoint[];
  private readonly silent = new Set<Endpoint>();
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
    this.fresh = [...members()];
    this.answer = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.next();
  }

  private next(): void {
    const member = this.fresh.shift() ?? this.members().find((each) => !this.silent.has(each));
    clearTimeout(this.timer);
    if (member === undefined) return;
    if (this.fresh.length > 0) this.timer = setTimeout(() => this.next(), this.limits.hedgeMs);
    this.silent.add(member);
    this.ask(member).then(
      (value) => this.succeeded(member, value),
      (error) => this.failed(member, error),
    );
  }

  private succeeded(member: Endpoint, value: T): void {
    this.silent.delete(member);
    // Too late: another was faster, though it was asked later.
    if (this.ended) return;
    member.succeeded();
    for (const other of this.silent) other.failed("slower than the next");
    this.end(() => this.resolve(value));
  }

  private failed(member: Endpoint, error: unknown): void {
    this.silent.delete(member);
    const isOwn = isMembersOwn(error);
    if (isOwn) member.failed(messageOf(error));
    if (this.ended) return;
    if (!isOwn) return this.end(() => this.reject(error));
    this.failures.set(member, member.describe(error));
    if (this.fresh.length > 0) return this.next();
    clearTimeout(this.timer);
    if (Date.now() + PAUSE_MS < this.limits.deadline)
      this.timer = setTimeout(() => this.next(), PAUSE_MS);
    else if (this.silent.size === 0) this.end(() => this.reject(this.failure()));
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
