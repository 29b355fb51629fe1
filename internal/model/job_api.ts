import type { LeaderRecord } from "./coordinator.ts";
import type { AttemptId, JobId } from "./ids.ts";
import type { JobState, JobView, TaskView, WorkerView } from "./job.ts";
import type { JobSpec } from "./job_request.ts";
import type { Assignment } from "./task.ts";

/** What a client was given (access.ts), as it is written; undefined: everything is to be seen. */
export type Viewer = readonly string[] | undefined;

/** A part of a list that may be long. */
export interface PageQuery {
  /** At most so many. */
  limit: number;
  /** `next` of the page before; "": from the beginning. */
  after: string;
}

export interface JobsQuery extends PageQuery {
  viewer: Viewer;
  /** Only those that have not ended. */
  active: boolean;
  state: JobState | undefined;
  /** Part of the name. */
  name: string;
}

export interface WorkersQuery extends PageQuery {
  viewer: Viewer;
}

export interface Page<T> {
  items: T[];
  /** Where the next page begins; "": there is none. */
  next: string;
}

/** How many there are of what; it costs the same however many. */
export interface Counts {
  jobs: Partial<Record<JobState, number>>;
  /** Of running jobs, not done; a job without a plan counts as one. */
  tasksOpen: number;
  tasksRunning: number;
  workers: Partial<Record<WorkerView["state"], number>>;
  slots: number;
}

/**
 * Port: what clients may ask of the leader. The master serves it; the proxy
 * calls it through RPC. Every method throws MrError.
 */
export interface JobApi {
  /** @param owner whose job it is, where clients have names. */
  submit(
    spec: JobSpec,
    idempotencyKey: string,
    owner: string,
  ): Promise<{ job: JobView; repeated: boolean }>;
  get(id: JobId): Promise<JobView>;
  /** The newest first; without what can be long. */
  list(query: JobsQuery): Promise<Page<JobView>>;
  count(viewer: Viewer): Promise<Counts>;
  /** Ends after the final state; throws `unavailable` when the leader goes. */
  watch(id: JobId, signal: AbortSignal): AsyncIterable<JobView>;
  cancel(id: JobId): Promise<JobView>;
  tasks(id: JobId, page: PageQuery): Promise<Page<TaskView>>;
  /** What a worker was, or would be, told to run; for running it again elsewhere. */
  assignment(attempt: AttemptId): Promise<Assignment>;
  workers(query: WorkersQuery): Promise<Page<WorkerView>>;
}

/** Port: who leads, as far as this process knows. */
export interface LeaderLocator {
  leader(): Promise<LeaderRecord | undefined>;
}
