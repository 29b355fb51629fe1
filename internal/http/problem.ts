import type { Context, Next } from "koa";
import { type ErrorCode, MrError } from "../model/errors.ts";
import type { Logger } from "../model/logger.ts";
import { overOf } from "./presence.ts";

const STATUS: Record<ErrorCode, [number, string]> = {
  invalid: [400, "Bad Request"],
  not_found: [404, "Not Found"],
  exists: [409, "Conflict"],
  changed: [409, "Conflict"],
  conflict: [409, "Conflict"],
  too_many: [429, "Too Many Requests"],
  denied: [502, "Bad Gateway"],
  unavailable: [503, "Service Unavailable"],
  fenced: [503, "Service Unavailable"],
  aborted: [503, "Service Unavailable"],
  corrupt: [500, "Internal Server Error"],
  user: [500, "Internal Server Error"],
  internal: [500, "Internal Server Error"],
};

/** For the figures only, as other servers count it: the client has left before the answer. */
const LEFT = 499;

/** A refusal with a status of its own. */
export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Answers every error with a problem document (RFC 9457) that names each offending field. */
export function problems(logger: Logger) {
  return async (ctx: Context, next: Next) => {
    try {
      await next();
      if (ctx.status === 404 && ctx.body === undefined)
        writeProblem(ctx, 404, "Not Found", `there is no ${ctx.method} ${ctx.path}`);
    } catch (error) {
      // Nobody is told, and nothing of ours has failed: what breaks then is what was the client's.
      if (overOf(ctx).aborted) ctx.status = LEFT;
      else answerError(ctx, error, logger);
    }
  };
}

function answerError(ctx: Context, error: unknown, logger: Logger): void {
  if (error instanceof HttpError) return writeProblem(ctx, error.status, "Refused", error.message);
  if (error instanceof MrError) {
    const [status, title] = STATUS[error.code];
    if (status >= 500) logger.warn({ path: ctx.path, error: error.message }, "request failed");
    writeProblem(ctx, status, title, error.message, error.violations);
    if (status === 503 || status === 429) ctx.set("Retry-After", "2");
    return;
  }
  const status = (error as { status?: unknown }).status;
  if (typeof status === "number" && status >= 400 && status < 500)
    return writeProblem(ctx, status, "Refused", (error as Error).message);
  logger.error({ path: ctx.path, error: String((error as Error).stack) }, "request failed");
  writeProblem(ctx, 500, "Internal Server Error", "something went wrong here");
}

function writeProblem(
  ctx: Context,
  status: number,
  title: string,
  detail: string,
  errors: object[] = [],
): void {
  ctx.status = status;
  ctx.body = { type: "about:blank", title, status, detail, ...(errors.length > 0 && { errors }) };
  ctx.type = "application/problem+json";
}
