import type { RecordWrite } from "../model/coordinator.ts";
import type { MrError } from "../model/errors.ts";
import type { AttemptId, JobId, WorkerId } from "../model/ids.ts";
import type { FailureClass, JobView, TaskView, WorkerView } from "../model/job.ts";
import type { Counts, JobsQuery, Page, PageQuery, Viewer, WorkersQuery } from "../model/job_api.ts";
import type { JobSpec } from "../model/job_request.ts";
import type { DoneRecord, JobRecord } from "../model/records.ts";
import type { MasterMessage, WorkerMessage } from "../model/session.ts";
import type { Receipt, Segments, Split, TaskPlan } from "../model/task.ts";

/** Everything that happens to the core. Time, and chance (in ids), arrive in the event. */
export type Event = { atMs: number; wallMs: number } & (
  | {
      kind: "submit";
      reply: ReplyTo;
      id: JobId;
      spec: JobSpec;
      idempotencyKey: string;
      owner: string;
      scripts: Record<string, string>;
    }
  | { kind: "cancel"; reply: ReplyTo; id: JobId }
  | { kind: "query"; reply: ReplyTo; query: Query }
  | { kind: "planned"; job: JobId; plan: Plan }
  | { kind: "plan-failed"; job: JobId; message: string }
  | { kind: "cut"; job: JobId; keys: Buffer[] }
  /** @property lost map attempts whose outputs could not be read whole. */
  | { kind: "cut-failed"; job: JobId; lost: AttemptId[]; message: string }
  | { kind: "published"; job: JobId }
  /** @property gone what was staged, and is no more: it cannot be published. */
  | { kind: "publish-failed"; job: JobId; gone: Receipt[] }
  /** Storage refuses it, and no trying helps. */
  | { kind: "publish-refused"; job: JobId; message: string }
  /** What the leader does for a job does not get on; it is tried again. */
  | { kind: "trouble"; job: JobId; message: string }
  | { kind: "swept"; job: JobId; what: SweepScope }
  /** Jobs of which there are map outputs, or results, in dfs-intermediate. */
  | { kind: "collected"; maps: JobId[]; results: JobId[] }
  | { kind: "worker-message"; worker: WorkerId; session: number; message: WorkerMessage }
  | { kind: "worker-disconnected"; worker: WorkerId; session: number }
  | { kind: "tick" }
);

/** The shell's handle of the caller that waits; opaque here. */
export type ReplyTo = number;

export type Query =
  | { kind: "job"; id: JobId }
  | ({ kind: "jobs" } & JobsQuery)
  | { kind: "counts"; viewer: Viewer }
  | ({ kind: "tasks"; id: JobId } & PageQuery)
  | { kind: "plan"; id: JobId }
  | ({ kind: "workers" } & WorkersQuery);

export type Answer =
  | { kind: "error"; error: MrError }
  | { kind: "submitted"; job: JobView; repeated: boolean }
  | { kind: "job"; job: JobView }
  | { kind: "jobs"; jobs: Page<JobView> }
  | { kind: "counts"; counts: Counts }
  | { kind: "tasks"; tasks: Page<TaskView>; archived: boolean }
  /** @property plan undefined: it was archived. */
  | { kind: "plan"; record: JobRecord; plan: TaskPlan | undefined }
  | { kind: "workers"; workers: Page<WorkerView> };

/** A plan made from input, or (reduce phase) from the finished tasks of another job. */
export type Plan = { kind: "splits"; splits: Split[] } | { kind: "done"; done: DoneRecord[] };

/**
 * What the core wants done. E1: commands take effect in order, and nothing after
 * a `put` takes effect before that put is durable. So no message, answer or
 * deletion ever rests on a decision that a crash could undo.
 */
export type Command =
  | { kind: "put"; writes: RecordWrite[] }
  | { kind: "send"; worker: WorkerId; session: number; message: MasterMessage }
  | { kind: "close"; worker: WorkerId; session: number }
  | { kind: "reply"; to: ReplyTo; answer: Answer }
  | { kind: "plan"; job: JobRecord }
  /** Look at the map outputs, and cut the keys into one range a reduce. */
  | { kind: "cut"; job: JobRecord; sources: Segments[] }
  | { kind: "publish"; job: JobId; receipts: Receipt[]; marker: Marker }
  | { kind: "sweep"; job: JobRecord; what: SweepScope; archive?: Archive }
  /** Look for objects that no job needs any more. */
  | { kind: "collect" }
  /** An attempt ended without output; for the log. */
  | { kind: "lost"; attempt: AttemptId; worker: WorkerId; why: FailureClass; message: string }
  /** Somebody may want to look at the job again. */
  | { kind: "changed"; job: JobId };

/** What is kept of an ended job beside its logs. */
export interface Archive {
  tasks: TaskView[];
  /** For running a task again. */
  plan: TaskPlan;
}

/** What a sweep deletes, once what is to be kept is archived. */
export interface SweepScope {
  /** Of its objects in dfs-intermediate. Whatever was staged and not published goes in any case. */
  objects: "none" | "maps" | "all";
  logs: boolean;
}

/** The object that says a result is whole; written last, create-only. */
export interface Marker {
  container: string;
  name: string;
  body: string;
}
