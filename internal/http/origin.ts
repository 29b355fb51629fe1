import { isIP } from "node:net";
import type { Context, Next } from "koa";
import { HttpError } from "./problem.ts";

/**
 * Keeps web pages of others out. A browser sends whatever a page asks for to any address that it
 * reaches, also to a proxy on the user's own machine, where nobody is asked for a token. It says
 * which page asked (`Origin`, `Sec-Fetch-Site`); where a page's own name was made to lead here
 * (DNS rebinding), the name is in `Host`.
 */
export interface OriginOptions {
  /** Names under which clients know this proxy, without a port; addresses and localhost go without saying. */
  hosts: readonly string[];
  /** Without tokens a name that is not known is refused: no page has a token, but any may have a name. */
  asksForTokens: boolean;
}

/** What nobody needs, and proxies between may take for something else. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]);

/** Told with every answer: a browser is to show it as what it is, and to no other page. */
const HEADERS = {
  "X-Content-Type-Options": "nosniff",
  "Cross-Origin-Resource-Policy": "same-origin",
  // What users have made is never a page of ours: it runs nothing and reaches nothing.
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
  "Referrer-Policy": "no-referrer",
};

export function ownOrigin(options: OriginOptions) {
  const hosts = new Set(options.hosts.map((host) => host.toLowerCase()));
  return async (ctx: Context, next: Next) => {
    ctx.set(HEADERS);
    if (!METHODS.has(ctx.method)) {
      ctx.set("Allow", [...METHODS].join(", "));
      throw new HttpError(405, `${ctx.method} is not for this proxy`);
    }
    const host = nameIn(ctx.get("Host"));
    if (!options.asksForTokens && !isOwn(host, hosts))
      throw new HttpError(
        403,
        `this proxy is not known by the name ${host.slice(0, 100)}: MR_HTTP_HOSTS names those that it has`,
      );
    if (isForeign(ctx, hosts))
      throw new HttpError(403, "a web page of another origin asked for this; it is not answered");
    return next();
  };
}

/** Of HOST or HOST:PORT. */
function nameIn(host: string): string {
  return host
    .replace(/:\d*$/, "")
    .replace(/^\[|\]$/g, "")
    .toLowerCase();
}

/** Nobody makes an address lead elsewhere, nor these names. Without a name there is no page. */
function isOwn(host: string, hosts: ReadonlySet<string>): boolean {
  return host === "" || isIP(host) !== 0 || /^(.+\.)?localhost\.?$/.test(host) || hosts.has(host);
}

function isForeign(ctx: Context, hosts: ReadonlySet<string>): boolean {
  const site = ctx.get("Sec-Fetch-Site");
  // `none`: a person has typed the address.
  if (site !== "" && site !== "same-origin" && site !== "none") return true;
  const origin = ctx.get("Origin");
  if (origin === "") return false;
  if (!URL.canParse(origin)) return true;
  const { host } = new URL(origin);
  // Whoever stands between may have asked by another name.
  return host !== ctx.get("Host").toLowerCase() && !hosts.has(nameIn(host));
}
