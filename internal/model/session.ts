import type { AttemptId } from "./ids.ts";
import type { FailureClass } from "./job.ts";
import type { Assignment, AttemptProgress, TaskOutput, TaskStats, WorkerInfo } from "./task.ts";

/** What a worker says on its stream. `hello` comes first and once. */
export type WorkerMessage =
  | { kind: "hello"; worker: WorkerInfo; attempts: AttemptId[] }
  | { kind: "ready"; free: number; grantsSeen: number }
  | { kind: "heartbeat"; seq: number; attempts: AttemptProgress[] }
  | { kind: "completed"; attempt: AttemptId; output: TaskOutput; stats: TaskStats }
  | {
      kind: "failed";
      attempt: AttemptId;
      class: FailureClass;
      message: string;
      logTail: string;
    }
  | { kind: "goodbye" };

/** What the leader says on a worker's stream. `welcome` comes first and once. */
export type MasterMessage =
  | { kind: "welcome"; epoch: number; heartbeatMs: number; leaseMs: number }
  | { kind: "renewed"; seq: number }
  | { kind: "grant"; assignment: Assignment }
  | { kind: "revoke"; attempt: AttemptId; reason: string }
  | { kind: "settled"; attempt: AttemptId; won: boolean }
  | { kind: "drain" };
