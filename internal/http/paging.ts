import type { Context } from "koa";
import { invalid } from "../model/errors.ts";
import { isJobState, type JobState } from "../model/job.ts";
import type { PageQuery } from "../model/job_api.ts";
import { LIMIT } from "../model/limits.ts";

/** What a query says of a list that may be long: `?limit=`, `?after=`, `?state=`, `?name=`. */

const TEXT_CHARS_MAX = 200;

/** @throws MrError `invalid` */
export function textIn(ctx: Context, name: string): string {
  const given = ctx.query[name] ?? "";
  if (typeof given !== "string" || given.length > TEXT_CHARS_MAX)
    throw invalid(name, `one text of at most ${TEXT_CHARS_MAX} characters is expected`);
  return given;
}

/** @throws MrError `invalid` */
export function pageIn(ctx: Context): PageQuery {
  const limit = textIn(ctx, "limit") || String(LIMIT.pageDefault);
  if (!/^[1-9]\d{0,3}$/.test(limit) || Number(limit) > LIMIT.page)
    throw invalid("limit", `a whole number from 1 to ${LIMIT.page} is expected`);
  return { limit: Number(limit), after: textIn(ctx, "after") };
}

/** @throws MrError `invalid` */
export function stateIn(ctx: Context): JobState | undefined {
  const state = textIn(ctx, "state");
  if (state === "") return undefined;
  if (!isJobState(state)) throw invalid("state", "not a state of a job");
  return state;
}

/** Where the list goes on, if it does: in the body, and as a link (RFC 8288). */
export function nextPage(ctx: Context, next: string): { next?: string } {
  if (next === "") return {};
  const query = new URLSearchParams(ctx.querystring);
  query.set("after", next);
  ctx.set("Link", `<${ctx.path}?${query}>; rel="next"`);
  return { next };
}
