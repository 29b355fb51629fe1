import type { Context } from "koa";
import type { Caller } from "../model/access.ts";
import { overOf } from "./presence.ts";
import { HttpError } from "./problem.ts";

/**
 * What may be under way at a time: for one client with a token, for all without one, and for all
 * together. Streams of progress that each follow another job are each one on the connection to the
 * leader too, which has 2,048: the others are for questions.
 */
export const SHARES = {
  streams: { named: 100, nameless: 1_000, all: 1_500 },
  transfers: { named: 32, nameless: 256, all: 1_024 },
  /** What is made of many names, or of a large record: they are all in memory meanwhile. */
  lists: { named: 8, nameless: 32, all: 64 },
} as const;

/** Counts what takes long, so that no client can have all of it. */
export class Shares {
  private readonly taken = new Map<string, number>();

  /**
   * Until the answer has gone out, or its client.
   * @throws HttpError 429; Gone
   */
  take(ctx: Context, caller: Caller, kind: keyof typeof SHARES): void {
    const over = overOf(ctx);
    over.throwIfAborted();
    const { named, nameless, all } = SHARES[kind];
    const bounds: [key: string, most: number][] = [
      [kind, all],
      [`${kind} ${caller.name}`, caller.name === "" ? nameless : named],
    ];
    for (const [key, most] of bounds)
      if (this.count(key) >= most) {
        ctx.set("Retry-After", "5");
        throw new HttpError(
          429,
          `${most} ${kind} are under way already, which is all there may be`,
        );
      }
    for (const [key] of bounds) this.add(key, 1);
    over.addEventListener("abort", () => {
      for (const [key] of bounds) this.add(key, -1);
    });
  }

  private count(key: string): number {
    return this.taken.get(key) ?? 0;
  }

  private add(key: string, change: 1 | -1): void {
    const count = this.count(key) + change;
    if (count === 0) this.taken.delete(key);
    else this.taken.set(key, count);
  }
}
