import type Router from "@koa/router";
import type { Context } from "koa";
import type { Caller } from "../model/access.ts";
import { callerFor } from "./authentication.ts";

export type Method = "GET" | "PUT" | "POST" | "DELETE";

/**
 * Who may use a route. What `admit` finds out on the way is given to the handler, so that
 * none of it can be left out.
 */
export interface Authorisation<Given> {
  /** Of the kind of it. */
  readonly name: string;
  /** @throws HttpError 403, MrError `not_found` */
  admit(ctx: Context, caller: Caller): Given | Promise<Given>;
}

/** For whoever reaches the port: nothing is said of anybody's jobs. */
export const OPEN = { name: "open" } as const;

export interface Route {
  method: Method;
  path: string;
  authorisation: string;
}

/** All routes of the proxy. None can be added that does not say who may use it. */
export class Routes {
  readonly all: Route[] = [];
  private readonly router: Router;

  constructor(router: Router) {
    this.router = router;
  }

  add<Given>(
    method: Method,
    path: string,
    authorisation: Authorisation<Given> | typeof OPEN,
    handler: (ctx: Context, given: Given) => void | Promise<void>,
  ): void {
    // Where nobody compiles, too.
    const { name } = authorisation;
    this.all.push({ method, path, authorisation: name });
    this.router.register(path, [method], async (ctx: Context) => {
      if (!("admit" in authorisation)) return handler(ctx, undefined as Given);
      return handler(ctx, await authorisation.admit(ctx, callerFor(ctx)));
    });
  }

  isOpen(path: string): boolean {
    return this.all.some((route) => route.path === path && route.authorisation === OPEN.name);
  }
}
