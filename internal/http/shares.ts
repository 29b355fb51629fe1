import type { Context } from "koa";
import type { Caller } from "../model/access.ts";
import { HttpError } from "./problem.ts";

/** What one client may have under way at a time; without tokens all are one. */
export const SHARES = {
  streams: { named: 100, all: 1_000 },
  transfers: { named: 32, all: 256 },
} as const;

/** Counts what takes long, so that no client can have all of it. */
export class Shares {
  private readonly taken = new Map<string, number>();

  /**
   * Until the answer has gone out, or its client.
   * @throws HttpError 429
   */
  take(ctx: Context, caller: Caller, kind: keyof typeof SHARES): void {
    const { named, all } = SHARES[kind];
    const most = caller.name === "" ? all : named;
    const key = `${kind} ${caller.name}`;
    const count = this.taken.get(key) ?? 0;
    if (count >= most) {
      ctx.set("Retry-After", "5");
      throw new HttpError(429, `${count} ${kind} are under way already, which is all there may be`);
    }
    this.taken.set(key, count + 1);
    ctx.res.once("close", () => {
      const left = (this.taken.get(key) ?? 1) - 1;
      if (left === 0) this.taken.delete(key);
      else this.taken.set(key, left);
    });
  }
}
