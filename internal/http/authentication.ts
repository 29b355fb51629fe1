import type { Context, Next } from "koa";
import { type Caller, containersOf } from "../model/access.ts";
import { pipelineOf } from "../model/ids.ts";
import type { JobView } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import type { JobSpec } from "../model/job_request.ts";
import { HttpError } from "./problem.ts";
import type { Authenticate } from "./token_file.ts";

/** What probes ask, and says nothing of anybody's jobs. */
const OPEN = new Set(["/healthz", "/readyz"]);

/** Lets nobody in whose token is not known: 401. What the known may do, the routes ask `callerFor`. */
export function authenticated(authenticate: Authenticate) {
  return async (ctx: Context, next: Next) => {
    if (!OPEN.has(ctx.path)) {
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

/** @throws HttpError 403 */
export function mustUse(ctx: Context, container: string): void {
  const caller = callerFor(ctx);
  if (!caller.mayUse(container))
    throw new HttpError(403, `token ${caller.name} may not use container ${container}`);
}

/** A job may be asked for that reads nothing, and writes nowhere, where its caller may not. */
export function mustUseAll(ctx: Context, spec: JobSpec): void {
  for (const container of containersOf(spec)) mustUse(ctx, container);
}

/** A job is seen, followed and cancelled by those who could have asked for it. */
export function maySee(ctx: Context, { spec }: JobView): boolean {
  return [...containersOf(spec)].every((container) => callerFor(ctx).mayUse(container));
}

/** The job of this id, where its caller may see it; of a step, the whole job decides. @throws HttpError 403 */
export async function seenJob(ctx: Context, jobs: JobApi, id: string): Promise<JobView> {
  const job = await jobs.get(id);
  const whole = pipelineOf(id) === id ? job : await jobs.get(pipelineOf(id));
  if (!maySee(ctx, whole))
    throw new HttpError(403, `token ${callerFor(ctx).name} may not see job ${id}`);
  return job;
}
