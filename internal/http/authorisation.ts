import type { Context } from "koa";
import { type Caller, needsOf, type Place, type Right, sayPlace } from "../model/access.ts";
import { invalid, MrError } from "../model/errors.ts";
import { isJobId, pipelineOf } from "../model/ids.ts";
import type { JobView } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import type { JobSpec } from "../model/job_request.ts";
import {
  blobNameFault,
  CONTAINER,
  containerNameFault,
  folderPrefix,
  locationOf,
  prefixFault,
} from "../model/names.ts";
import { HttpError } from "./problem.ts";
import type { Authorisation } from "./routes.ts";

/** Whoever is known; what he is shown is his own. */
export const KNOWN: Authorisation<Caller> = { name: "known", admit: (_, caller) => caller };

/** Who may do everything. */
export const OPERATOR: Authorisation<Caller> = {
  name: "operator",
  admit(_, caller) {
    if (caller.places === undefined) return caller;
    throw new HttpError(403, `token ${caller.name} is not given everything (*)`);
  },
};

/** The job of the path, for those who could have asked for it. */
export function ofJob(jobs: JobApi): Authorisation<JobView> {
  return {
    name: "job",
    admit: (ctx, caller) => seenJob(jobs, caller, parameter(ctx, "id")),
  };
}

/**
 * A job is seen, followed and cancelled by those who could have asked for it; of a step, the whole
 * job decides. To all others there is no such job.
 * @throws MrError `not_found`
 */
export async function seenJob(jobs: JobApi, caller: Caller, id: string): Promise<JobView> {
  const unknown = () => new MrError("not_found", `there is no job ${id.slice(0, 100)}`);
  if (!isJobId(id)) throw unknown();
  try {
    const job = await jobs.get(id);
    const whole = pipelineOf(id) === id ? job : await jobs.get(pipelineOf(id));
    if (maySee(caller, whole)) return job;
  } catch (error) {
    if (!MrError.is(error, "not_found")) throw error;
  }
  throw unknown();
}

function maySee(caller: Caller, { spec, id }: JobView): boolean {
  return (
    caller.places === undefined || needsOf(spec, id).every((need) => caller.may(need.right, need))
  );
}

/** A job may be asked for that reads nothing, and writes nowhere, where its caller may not. */
export function mustRun(caller: Caller, spec: JobSpec): void {
  if (caller.places === undefined) return;
  for (const need of needsOf(spec)) mustHave(caller, need.right, need, adviceFor(spec, need));
}

function adviceFor(spec: JobSpec, { container, exact, prefix }: Place): string {
  if (container === CONTAINER.dest && spec.output === "") return "; say where its output goes";
  if (exact && /^[\w-]+$/.test(prefix)) return `; a program of the workers is /usr/bin/${prefix}`;
  return "";
}

/** @throws HttpError 403, whether there is something or not. */
function mustHave(caller: Caller, right: Right, place: Place, advice = ""): void {
  if (!caller.may(right, place))
    throw new HttpError(403, `token ${caller.name} may not ${right} ${sayPlace(place)}${advice}`);
}

/**
 * The job of the path, for those who may do this where its result lies as well: what is in a folder
 * into which one only writes is not read by way of a job either.
 */
export function ofResult(jobs: JobApi, right: Right): Authorisation<JobView> {
  return {
    name: `${right} result`,
    async admit(ctx, caller) {
      const job = await ofJob(jobs).admit(ctx, caller);
      const place = resultPlaceOf(job);
      if (place !== undefined) mustHave(caller, right, place);
      return job;
    },
  };
}

/**
 * To end a job is for those who may write where its result goes, which are all who see it; a map phase
 * leaves none, and is its owner's.
 */
export function ofOwn(jobs: JobApi): Authorisation<JobView> {
  return {
    name: "own job",
    async admit(ctx, caller) {
      const job = await ofJob(jobs).admit(ctx, caller);
      // Of a job from before there were owners, or before there were tokens, all may.
      const mayEnd = caller.places === undefined || ["", caller.name].includes(job.owner);
      if (resultPlaceOf(job) === undefined && !mayEnd)
        throw new HttpError(403, `job ${job.id} is another's`);
      return job;
    },
  };
}

/** Undefined of a map phase: it leaves none. */
function resultPlaceOf({ spec, output }: JobView): Place | undefined {
  if (spec.phase === "map") return undefined;
  const { container, prefix } = locationOf(output);
  return { container, prefix: folderPrefix(prefix), exact: false };
}

/** The caller too, for what is counted by who asks. */
export function withCaller<Given>({
  name,
  admit,
}: Authorisation<Given>): Authorisation<[Given, Caller]> {
  return { name, admit: async (ctx, caller) => [await admit(ctx, caller), caller] };
}

export interface Blob {
  container: string;
  name: string;
}

/** The blob of the path. */
export function ofBlob(right: Right): Authorisation<Blob> {
  return {
    name: `${right} blob`,
    admit(ctx, caller) {
      const container = containerIn(ctx);
      const name = parameter(ctx, "name");
      const fault = blobNameFault(name);
      if (fault !== undefined) throw invalid("name", fault);
      mustHave(caller, right, { container, prefix: name, exact: true });
      return { container, name };
    },
  };
}

/** The container of the path, or what begins with the query's `prefix` there. */
export function ofContainer(right: Right): Authorisation<Pick<Place, "container" | "prefix">> {
  return {
    name: `${right} container`,
    admit(ctx, caller) {
      const container = containerIn(ctx);
      const prefix = String(ctx.query.prefix ?? "");
      const fault = prefixFault(prefix);
      if (fault !== undefined) throw invalid("prefix", fault);
      mustHave(caller, right, { container, prefix, exact: false });
      return { container, prefix };
    },
  };
}

function containerIn(ctx: Context): string {
  const container = parameter(ctx, "container");
  const fault = containerNameFault(container);
  if (fault !== undefined) throw invalid("container", fault);
  return container;
}

export function parameter(ctx: Context, name: string): string {
  return (ctx as { params?: Record<string, string> }).params?.[name] ?? "";
}
