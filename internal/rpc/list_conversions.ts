import { isTokenName, placeFault } from "../model/access.ts";
import { invalid } from "../model/errors.ts";
import type { JobState } from "../model/job.ts";
import type { Counts, JobsQuery, PageQuery, Viewer } from "../model/job_api.ts";
import { LIMIT } from "../model/limits.ts";
import { stateFromMessage, stateToMessage } from "./conversions.ts";
import {
  type CountResponse,
  type ListRequest,
  JobState as State,
  type Viewer as ViewerMessage,
} from "./gen/mapreduce/v1/job_pb.ts";

/** Between the messages on the wire and the words of the model: what lists are asked for with. */

const PLACES_MAX = 1_000;
const CURSOR_CHARS_MAX = 200;
const NAME_CHARS_MAX = 200;
const KEY_CHARS_MAX = 300;

/** @throws MrError `invalid` */
export function pageFromMessage({ limit, after }: { limit: number; after: string }): PageQuery {
  if (limit < 0) throw invalid("limit", "not below 0");
  if (after.length > CURSOR_CHARS_MAX) throw invalid("after", "not the next of a page");
  return { limit: Math.min(limit || LIMIT.pageDefault, LIMIT.page), after };
}

/** @throws MrError `invalid` */
export function viewerFromMessage(message: ViewerMessage | undefined): Viewer {
  if (message === undefined) return undefined;
  const { places } = message;
  if (places.length > PLACES_MAX) throw invalid("viewer", `at most ${PLACES_MAX} places`);
  for (const place of places) {
    const fault = placeFault(place);
    if (fault !== undefined) throw invalid("viewer", fault);
  }
  return places;
}

export function viewerToMessage(viewer: Viewer): { viewer?: { places: string[] } } {
  return viewer === undefined ? {} : { viewer: { places: [...viewer] } };
}

/** @throws MrError `invalid` */
export function jobsQueryFromMessage(message: ListRequest): JobsQuery {
  const { active, name } = message;
  if (name.length > NAME_CHARS_MAX) throw invalid("name", `at most ${NAME_CHARS_MAX} characters`);
  const page = pageFromMessage(message);
  if (!/^\d{0,15}$/.test(page.after)) throw invalid("after", "not the next of a page");
  const state = stateFromMessage(message.state);
  return { active, name, state, viewer: viewerFromMessage(message.viewer), ...page };
}

export function jobsQueryToMessage({ viewer, state, ...query }: JobsQuery) {
  const wanted = state === undefined ? State.UNSPECIFIED : stateToMessage(state);
  return { ...query, state: wanted, ...viewerToMessage(viewer) };
}

export function countsToMessage(counts: Counts) {
  return {
    ...counts,
    tasksOpen: BigInt(counts.tasksOpen),
    tasksRunning: BigInt(counts.tasksRunning),
  };
}

export function countsFromMessage(message: CountResponse): Counts {
  const { jobs, workers, slots } = message;
  return {
    jobs: jobs as Partial<Record<JobState, number>>,
    workers,
    slots,
    tasksOpen: Number(message.tasksOpen),
    tasksRunning: Number(message.tasksRunning),
  };
}

/** @throws MrError `invalid` */
export function checkSubmission(idempotencyKey: string, owner: string): void {
  if (idempotencyKey.length > KEY_CHARS_MAX)
    throw invalid("idempotency_key", `at most ${KEY_CHARS_MAX} characters`);
  if (owner !== "" && !isTokenName(owner)) throw invalid("owner", "not the name of a client");
}
