import type { LeaderRecord } from "./coordinator.ts";
import type { AttemptId, JobId } from "./ids.ts";
import type { JobView, TaskView, WorkerView } from "./job.ts";
import type { JobSpec } from "./job_request.ts";
import type { Assignment } from "./task.ts";

/**
 * Port: what clients may ask of the leader. The master serves it; the proxy
 * calls it through RPC. Every method throws MrError.
 */
export interface JobApi {
  submit(spec: JobSpec, idempotencyKey: string): Promise<{ job: JobView; repeated: boolean }>;
  get(id: JobId): Promise<JobView>;
  list(active: boolean): Promise<JobView[]>;
  /** Ends after the final state; throws `unavailable` when the leader goes. */
  watch(id: JobId, signal: AbortSignal): AsyncIterable<JobView>;
  cancel(id: JobId): Promise<JobView>;
  tasks(id: JobId): Promise<TaskView[]>;
  /** What a worker was, or would be, told to run; for running it again elsewhere. */
  assignment(attempt: AttemptId): Promise<Assignment>;
  workers(): Promise<WorkerView[]>;
}

/** Port: who leads, as far as this process knows. */
export interface LeaderLocator {
  leader(): Promise<LeaderRecord | undefined>;
}
