/**
 * Port: leadership and fenced records. Backends: etcd, SQLite.
 *
 * C1: at any time at most one leader's writes are accepted: each commit is
 *     refused (`fenced`) unless the leader's own record, by its epoch, stands.
 * C2: epochs grow from leader to leader.
 * C3: a commit is all or nothing; a repeat of the same commit is harmless, also one that
 *     the network delivers after later commits.
 * C4: a leader knows by its own monotonic clock, from the moment its last
 *     renewal was *sent*, that its time is over, before another can be elected.
 */
export interface LeaderInfo {
  id: string;
  /** HOST:PORT of its RPC server. */
  address: string;
  pid: number;
}

export interface LeaderRecord extends LeaderInfo {
  epoch: number;
}

export type RecordWrite = { key: string; value: string } | { key: string; value: undefined };

/** One term of leadership. */
export interface Leadership {
  readonly epoch: number;
  /** Aborts when the term is over, whoever ended it. */
  readonly over: AbortSignal;
  /** Whether the term still holds right now, by this process's clock. */
  valid(): boolean;
  /**
   * Writes atomically, fenced. At most COMMIT_RECORDS_MAX records; a value of undefined deletes.
   * @throws MrError `fenced` once deposed, `unavailable` when the outcome is unknown: repeat it before any other.
   */
  commit(writes: RecordWrite[]): Promise<void>;
  /** Ends the term at once, so that another may be elected. */
  resign(): Promise<void>;
}

export interface Coordinator {
  /** Waits until this candidate leads. @throws MrError `aborted` by the signal. */
  campaign(candidate: LeaderInfo, signal: AbortSignal): Promise<Leadership>;
  leader(): Promise<LeaderRecord | undefined>;
  /** All records whose key begins with the prefix, in key order, read in pages. */
  list(prefix: string): AsyncIterable<{ key: string; value: string }>;
  /** Calls back when the leader may have changed: a hint, it may come late, twice or not at all. */
  watchLeader(hint: () => void): Disposable;
  close(): Promise<void>;
}

/** etcd takes 128 operations in a transaction unless told otherwise; some are the term's own. */
export const COMMIT_RECORDS_MAX = 120;
/** etcd refuses a request over 1.5 MiB; some of it is framing. */
export const COMMIT_BYTES_MAX = 1024 * 1024;
