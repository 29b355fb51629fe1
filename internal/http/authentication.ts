import type { Context, Next } from "koa";
import type { Caller } from "../model/access.ts";
import { HttpError } from "./problem.ts";
import type { Authenticate } from "./token_file.ts";

/**
 * Lets nobody in whose token is not known: 401. What the known may do is each route's to say.
 * @param isOpen whether a path is for everybody.
 */
export function authenticated(authenticate: Authenticate, isOpen: (path: string) => boolean) {
  return async (ctx: Context, next: Next) => {
    if (!isOpen(ctx.path)) {
      const token = /^Bearer +(\S+) *$/i.exec(ctx.get("Authorization"))?.[1] ?? "";
      const caller = authenticate(token);
      if (caller === undefined) {
        ctx.set("WWW-Authenticate", 'Bearer realm="mr"');
        throw new HttpError(
          401,
          token === ""
            ? "this proxy asks for a token: Authorization: Bearer TOKEN (mr takes it from MR_TOKEN)"
            : "the token is not known here",
        );
      }
      ctx.state.caller = caller;
    }
    return next();
  };
}

export function callerFor(ctx: Context): Caller {
  const { caller } = ctx.state as { caller?: Caller };
  // A route that is open asks nobody who he is: that would be a mistake of ours.
  if (caller === undefined) throw new Error("the request has no caller");
  return caller;
}
