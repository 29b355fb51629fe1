import type { AttemptId, JobId } from "../model/ids.ts";
import type { Assignment, EarlySources, Progress } from "../model/task.ts";
import type { TaskResult } from "./task_context.ts";

/** What the main thread tells a slot's thread, and what that answers. */
export type ToSlot =
  | { kind: "run"; assignment: Assignment }
  | { kind: "stop"; attempt: AttemptId }
  /** It will be run next, as far as one can tell: its input can be asked for. */
  | { kind: "expect"; assignment: Assignment }
  | { kind: "unexpect"; attempt: AttemptId }
  | { kind: "prefetch"; early: EarlySources }
  /** Undefined: of all jobs. */
  | { kind: "forget"; job: JobId | undefined };

export type FromSlot =
  | { kind: "progress"; attempt: AttemptId; progress: Progress }
  | { kind: "fed"; attempt: AttemptId }
  | { kind: "finished"; attempt: AttemptId; result: TaskResult };
