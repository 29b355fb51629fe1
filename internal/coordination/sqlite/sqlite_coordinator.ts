import { mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import type {
  Coordinator,
  LeaderInfo,
  LeaderRecord,
  Leadership,
  RecordWrite,
} from "../../model/coordinator.ts";
import { MrError } from "../../model/errors.ts";

/**
 * The coordinator of one machine: a SQLite file that several processes share.
 * Leases compare the monotonic clock, which all processes of a machine have in
 * common; it starts anew at boot, so a lease names the boot it belongs to.
 */
export interface SqliteOptions {
  file: string;
  /** A leader that does not renew for this long is deposed. */
  ttlMs: number;
  pollMs?: number;
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS record (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS leader (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    info TEXT,
    boot TEXT NOT NULL,
    deadline_ms REAL NOT NULL
  );
`;

const LIST_PAGE = 500;

export class SqliteCoordinator implements Coordinator {
  private readonly db: DatabaseSync;
  private readonly ttlMs: number;
  private readonly pollMs: number;
  private readonly boot = bootId();

  constructor(options: SqliteOptions) {
    mkdirSync(dirname(options.file), { recursive: true });
    this.ttlMs = options.ttlMs;
    this.pollMs = options.pollMs ?? 100;
    this.db = new DatabaseSync(options.file, { timeout: 2_000 });
    this.db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    this.db.exec(SCHEMA);
  }

  async campaign(candidate: LeaderInfo, signal: AbortSignal): Promise<Leadership> {
    while (true) {
      if (signal.aborted) throw new MrError("aborted", "the campaign was called off");
      const sentMs = monotonicMs();
      const epoch = this.transaction(() => this.tryElect(candidate, sentMs));
      if (epoch !== undefined) return new SqliteTerm(this, epoch, this.ttlMs, sentMs);
      await delay(this.pollMs, undefined, { signal }).catch(() => undefined);
    }
  }

  private tryElect(candidate: LeaderInfo, nowMs: number): number | undefined {
    const row = this.leaderRow();
    if (row !== undefined && this.stands(row, nowMs)) return undefined;
    const epoch = (row?.epoch ?? 0) + 1;
    this.db
      .prepare(
        `INSERT INTO leader VALUES (1, ?, ?, ?, ?) ON CONFLICT (one) DO UPDATE SET
         epoch = excluded.epoch, info = excluded.info, boot = excluded.boot,
         deadline_ms = excluded.deadline_ms`,
      )
      .run(epoch, JSON.stringify(candidate), this.boot, nowMs + this.ttlMs);
    return epoch;
  }

  private stands(row: LeaderRow, nowMs: number): boolean {
    // Without boot ids, a deadline too far ahead betrays another boot's clock.
    return (
      row.info !== null &&
      row.boot === this.boot &&
      row.deadline_ms > nowMs &&
      row.deadline_ms <= nowMs + this.ttlMs * 10
    );
  }

  private leaderRow(): LeaderRow | undefined {
    const row = this.db.prepare("SELECT epoch, info, boot, deadline_ms FROM leader").get();
    return row as LeaderRow | undefined;
  }

  async leader(): Promise<LeaderRecord | undefined> {
    const row = this.guard(() => this.leaderRow());
    if (row === undefined || row.info === null || !this.stands(row, monotonicMs()))
      return undefined;
    return { ...(JSON.parse(row.info) as LeaderInfo), epoch: row.epoch };
  }

  async *list(prefix: string): AsyncIterable<{ key: string; value: string }> {
    let after = "";
    const page = this.db.prepare(
      "SELECT key, value FROM record WHERE key >= ? AND key > ? AND substr(key, 1, ?) = ? ORDER BY key LIMIT ?",
    );
    while (true) {
      const rows = this.guard(() =>
        page.all(prefix, after, prefix.length, prefix, LIST_PAGE),
      ) as unknown as { key: string; value: string }[];
      for (const { key, value } of rows) yield { key, value };
      if (rows.length < LIST_PAGE) return;
      after = rows.at(-1)?.key ?? "";
    }
  }

  watchLeader(hint: () => void): Disposable {
    let last = "";
    const look = () => {
      try {
        const row = this.leaderRow();
        const now = `${row?.epoch}:${row?.info}`;
        if (now !== last && last !== "") hint();
        last = now;
      } catch {
        // Busy: the next look will tell.
      }
    };
    const timer = setInterval(look, this.pollMs);
    timer.unref();
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  /** Runs a term's write in a transaction in which that term is known to stand. */
  fenced(epoch: number, write: (db: DatabaseSync) => void): void {
    this.transaction(() => {
      const row = this.leaderRow();
      if (row === undefined || row.epoch !== epoch || row.info === null)
        throw new MrError("fenced", `leader of epoch ${epoch} was deposed`);
      write(this.db);
    });
  }

  private transaction<T>(body: () => T): T {
    return this.guard(() => {
      this.db.exec("BEGIN IMMEDIATE");
      try {
        const result = body();
        this.db.exec("COMMIT");
        return result;
      } catch (error) {
        if (this.db.isTransaction) this.db.exec("ROLLBACK");
        throw error;
      }
    });
  }

  private guard<T>(body: () => T): T {
    try {
      return body();
    } catch (cause) {
      if (cause instanceof MrError) throw cause;
      throw new MrError("unavailable", `SQLite: ${(cause as Error).message}`, { cause });
    }
  }

  async close(): Promise<void> {
    if (this.db.isOpen) this.db.close();
  }
}

interface LeaderRow {
  epoch: number;
  info: string | null;
  boot: string;
  deadline_ms: number;
}

/** C4 holds as renewals run in this process: the deadline counts from before the write. */
class SqliteTerm implements Leadership {
  readonly epoch: number;
  readonly over: AbortSignal;
  private readonly end = new AbortController();
  private readonly coordinator: SqliteCoordinator;
  private readonly ttlMs: number;
  private readonly timer: NodeJS.Timeout;
  private validUntilMs: number;

  constructor(coordinator: SqliteCoordinator, epoch: number, ttlMs: number, sentMs: number) {
    this.coordinator = coordinator;
    this.epoch = epoch;
    this.ttlMs = ttlMs;
    this.over = this.end.signal;
    this.validUntilMs = sentMs + ttlMs * 0.8;
    this.timer = setInterval(() => this.renew(), ttlMs / 4);
  }

  valid(): boolean {
    return !this.over.aborted && monotonicMs() < this.validUntilMs;
  }

  private renew(): void {
    const sentMs = monotonicMs();
    try {
      this.coordinator.fenced(this.epoch, (db) =>
        db.prepare("UPDATE leader SET deadline_ms = ?").run(sentMs + this.ttlMs),
      );
      this.validUntilMs = sentMs + this.ttlMs * 0.8;
    } catch (error) {
      if (MrError.is(error, "fenced") || !this.valid()) this.finish();
    }
  }

  async commit(writes: RecordWrite[]): Promise<void> {
    if (this.over.aborted) throw new MrError("fenced", "the term is over");
    try {
      this.coordinator.fenced(this.epoch, (db) => {
        const put = db.prepare("INSERT OR REPLACE INTO record VALUES (?, ?)");
        const drop = db.prepare("DELETE FROM record WHERE key = ?");
        for (const { key, value } of writes)
          if (value === undefined) drop.run(key);
          else put.run(key, value);
      });
    } catch (error) {
      if (MrError.is(error, "fenced")) this.finish();
      throw error;
    }
  }

  async resign(): Promise<void> {
    if (this.over.aborted) return;
    this.finish();
    try {
      this.coordinator.fenced(this.epoch, (db) => db.exec("UPDATE leader SET info = NULL"));
    } catch {
      // Deposed already, or the lease runs out by itself.
    }
  }

  private finish(): void {
    clearInterval(this.timer);
    this.end.abort();
  }
}

function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "unknown";
  }
}
