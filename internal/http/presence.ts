import type { Context, Next } from "koa";

/**
 * Whether anybody still waits for the answer. Clients leave at any moment, also before the first
 * line of a handler runs: who listens for that only later has missed it. So one signal is made
 * before anything else, and given to all that goes on for as long as its client does.
 */
export function presence() {
  return (ctx: Context, next: Next) => {
    const over = new AbortController();
    ctx.res.once("close", () => over.abort(new Gone()));
    ctx.state.over = over.signal;
    return next();
  };
}

/** Why a request went no further: nobody is there to be told. */
export class Gone extends Error {
  constructor() {
    super("the client has left");
  }
}

/** Aborted when the answer has gone out, or its client has. */
export function overOf(ctx: Context): AbortSignal {
  const { over } = ctx.state as { over?: AbortSignal };
  if (over === undefined) throw new Error("the request was not seen to arrive");
  return over;
}
