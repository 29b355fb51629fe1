import type { Context, Next } from "koa";
import { printableJson } from "../model/printable.ts";

/**
 * All JSON of the proxy. Much of what it says was made by others (logs, names, the words of an
 * error), and what asks for it may print it on a terminal.
 */
export function jsonText(value: unknown): string {
  return printableJson(JSON.stringify(value));
}

/** Bodies that are set as objects go out as such text. */
export function jsonBodies() {
  return async (ctx: Context, next: Next) => {
    await next();
    if (isPlain(ctx.body)) ctx.body = jsonText(ctx.body);
  };
}

/** Not bytes, and no stream. */
function isPlain(body: unknown): boolean {
  if (typeof body !== "object" || body === null) return false;
  return Array.isArray(body) || Object.getPrototypeOf(body) === Object.prototype;
}
