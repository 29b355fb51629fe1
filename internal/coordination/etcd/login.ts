import { setTimeout as delay } from "node:timers/promises";
import { isRefusedLogin, isUnknownToken } from "./failures.ts";

/** A token this young has not run out: the member that knows none such has yet to hear of it. In milliseconds. */
const YOUNG_MS = 500;
/** A refused login is not tried again for so long: each costs etcd 0.1 s of computing. */
const REFUSED_MS = 5_000;

/**
 * Who we are to etcd. All calls share one token, for every member takes it, and all who wait for a
 * login wait for the same one. The library's own asks for new ones without end.
 */
export class Login {
  /** Undefined: not logged in, or no login is needed. */
  token: string | undefined;
  private readonly logIn: (() => Promise<string>) | undefined;
  private sinceMs = 0;
  private pending: Promise<void> | undefined;
  private refusal: { error: unknown; untilMs: number } | undefined;

  /** @param logIn undefined: without. */
  constructor(logIn: (() => Promise<string>) | undefined) {
    this.logIn = logIn;
  }

  /** Logs in where need be. @throws what etcd says. */
  async ready(): Promise<void> {
    if (this.logIn === undefined || this.token !== undefined) return;
    if (this.refusal !== undefined && performance.now() < this.refusal.untilMs)
      throw this.refusal.error;
    this.pending ??= this.begin(this.logIn).finally(() => {
      this.pending = undefined;
    });
    await this.pending;
  }

  private async begin(logIn: () => Promise<string>): Promise<void> {
    this.refusal = undefined;
    try {
      this.token = await logIn();
      this.sinceMs = performance.now();
    } catch (error) {
      if (isRefusedLogin(error)) this.refusal = { error, untilMs: performance.now() + REFUSED_MS };
      throw error;
    }
  }

  /** A call with this token was refused: logs in again, unless that was done meanwhile. */
  async renew(token: string | undefined, refusal: unknown): Promise<void> {
    if (this.token === token) {
      const isYoung = performance.now() - this.sinceMs < YOUNG_MS;
      if (isYoung && isUnknownToken(refusal)) await delay(YOUNG_MS / 5);
      else this.token = undefined;
    }
    await this.ready();
  }
}
