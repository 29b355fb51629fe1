import type { AttemptId, JobId } from "./ids.ts";
import type { FailureClass } from "./job.ts";
import type {
  Assignment,
  AttemptProgress,
  BadRecords,
  EarlySources,
  TaskOutput,
  TaskStats,
  WorkerInfo,
} from "./task.ts";

/** What a worker says on its stream. `hello` comes first and once. */
export type WorkerMessage =
  | { kind: "hello"; worker: WorkerInfo; attempts: AttemptId[] }
  | { kind: "ready"; free: number; seen: number; ahead: number }
  | { kind: "heartbeat"; seq: number; attempts: AttemptProgress[] }
  | {
      kind: "completed";
      attempt: AttemptId;
      output: TaskOutput;
      stats: TaskStats;
      bad?: BadRecords | undefined;
    }
  | {
      kind: "failed";
      attempt: AttemptId;
      class: FailureClass;
      message: string;
      logTail: string;
      /** Map attempts whose outputs could not be read whole. */
      lostOutputs: AttemptId[];
    }
  | { kind: "goodbye" };

/** What the leader says on a worker's stream. `welcome` comes first and once. */
export type MasterMessage =
  | { kind: "welcome"; epoch: number; heartbeatMs: number; leaseMs: number }
  | { kind: "renewed"; seq: number }
  | { kind: "grant"; assignment: Assignment }
  | { kind: "revoke"; attempt: AttemptId; reason: string }
  | { kind: "settled"; attempt: AttemptId; won: boolean }
  | ({ kind: "prefetch" } & EarlySources)
  | { kind: "forget"; job: JobId }
  | { kind: "drain" };

/** Port: the leader's side of a worker's stream. */
export interface WorkerLink {
  send(message: MasterMessage): void;
  /** Ends the stream; `gone` is called as for any other end. */
  close(): void;
}

/** What the leader does with what comes from the stream. */
export interface WorkerListener {
  /** @throws MrError what is said makes no sense; the stream ends with it. */
  hear(message: WorkerMessage): void;
  gone(): void;
}

export interface WorkerSessions {
  /** @throws MrError `unavailable` where this master does not lead. */
  attach(link: WorkerLink): WorkerListener;
}

/** Port: a worker's stream to the leader. */
export interface LeaderStream {
  send(message: WorkerMessage): void;
  /** Ends with the stream; throws MrError when it breaks. */
  messages(): AsyncIterable<MasterMessage>;
  /** Ends the stream after what was sent has gone out. */
  close(): void;
  /** Gives the stream up at once. */
  abort(): void;
}

/** Port: finds whoever leads now and opens a stream to it. */
export interface LeaderDialer {
  /** @throws MrError `unavailable` */
  dial(): Promise<LeaderStream>;
}
