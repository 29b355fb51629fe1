/**
 * The worker's pure core: step(event) -> commands. No I/O, no clock. It is driven
 * by the session's shell, and by the cluster simulation.
 *
 * An attempt is
 *   waiting   granted ahead: it has a lease, and will have the next slot that is free; or it is the
 *             heir of a running one that has read all its input, whose slot asks for the heir's then
 *   running   its slot works; it has a lease that heartbeats renew
 *   stopping  its slot was told to stop (revoked, lease over, worker leaving)
 *   sealed    its output is complete and reported; only `settled` ends it
 *
 * Connection: away -> (welcome) -> up -> (lost) -> away. On each welcome the worker
 * has announced all attempts it has and reports the sealed ones again.
 *
 * Invariants:
 * W1  no script runs past its lease: what could not be renewed is stopped.
 * W2  a sealed output is deleted only when told `settled lost`.
 * W3  a leader of an older epoch than one already met is not listened to.
 * W4  attempts that are not waiting take no more than all shares of the slots.
 * W5  a running attempt has one heir at most, which is run, or `unexpect`ed, when the slot is free.
 */
import { type AttemptId, type JobId, parseAttemptId } from "../model/ids.ts";
import type { FailureClass } from "../model/job.ts";
import type { MasterMessage, WorkerMessage } from "../model/session.ts";
import {
  type Assignment,
  type AttemptProgress,
  type BadRecords,
  type EarlySources,
  newProgress,
  sharesOf,
  type TaskOutput,
  type TaskStats,
  type WorkerInfo,
} from "../model/task.ts";
import type { TaskResult } from "./task_context.ts";

export type AgentEvent = { atMs: number } & (
  | { kind: "connected" }
  | { kind: "disconnected" }
  | { kind: "message"; message: MasterMessage }
  | { kind: "finished"; attempt: AttemptId; result: TaskResult }
  /** It has read all its input, over a network. */
  | { kind: "fed"; attempt: AttemptId }
  /** Time passes: heartbeats are due, leases may be over. */
  | { kind: "tick"; progress: AttemptProgress[] }
  /** The worker is asked to leave. `now`: the grace period is over. */
  | { kind: "leave"; now: boolean }
);

export type AgentCommand =
  | { kind: "send"; message: WorkerMessage }
  | { kind: "run"; assignment: Assignment }
  | { kind: "stop"; attempt: AttemptId }
  /** Its input is worth asking for where `after` runs. */
  | { kind: "expect"; assignment: Assignment; after: AttemptId }
  | { kind: "unexpect"; attempt: AttemptId }
  | { kind: "discard"; attempt: AttemptId; output: TaskOutput; bad: BadRecords | undefined }
  | ({ kind: "prefetch" } & EarlySources)
  /** Undefined: of all jobs. */
  | { kind: "forget"; job: JobId | undefined }
  /** Give up this connection and look for the leader again. */
  | { kind: "reconnect" }
  | { kind: "left" };

type Held =
  | { kind: "waiting"; leaseUntilMs: number; assignment: Assignment; heirOf?: AttemptId }
  | { kind: "running"; leaseUntilMs: number; fed: boolean }
  | { kind: "stopping"; class: FailureClass; message: string }
  | { kind: "sealed"; output: TaskOutput; stats: TaskStats; bad: BadRecords | undefined };

type Waiting = Extract<Held, { kind: "waiting" }>;

type Connection =
  | { kind: "away" }
  | { kind: "greeting"; sentMs: number }
  | { kind: "up"; heartbeatMs: number; leaseMs: number; nextHeartbeatMs: number };

/** A script is stopped before its lease ends: stopping takes time, and clocks differ. */
const LEASE_SHARE = 0.9;

export class WorkerAgent {
  readonly held = new Map<AttemptId, Held>();
  private readonly info: WorkerInfo;
  private connection: Connection = { kind: "away" };
  private epoch = 0;
  /** Shares that the grants of this session take. */
  private seen = 0;
  private seq = 0;
  private leaving = false;
  private left = false;
  /** When the newest thing that the leader has acknowledged was sent: leases count from here (W1). */
  private heardMs = 0;
  /** Heartbeats not yet acknowledged: when each was sent, and for which attempts. */
  private unacknowledged = new Map<number, { sentMs: number; attempts: AttemptId[] }>();

  constructor(info: WorkerInfo) {
    this.info = info;
  }

  step(event: AgentEvent): AgentCommand[] {
    const out: AgentCommand[] = [];
    if (this.left) return out;
    switch (event.kind) {
      case "connected":
        this.greet(event.atMs, out);
        break;
      case "disconnected":
        this.connection = { kind: "away" };
        this.unacknowledged.clear();
        // The next leader knows nothing of it.
        out.push({ kind: "forget", job: undefined });
        break;
      case "message":
        this.hear(event.message, event.atMs, out);
        break;
      case "finished":
        this.finished(event.attempt, event.result, out);
        break;
      case "fed":
        this.fed(event.attempt, out);
        break;
      case "tick":
        this.expireLeases(event.atMs, out);
        this.heartbeat(event.atMs, event.progress, out);
        break;
      case "leave":
        this.leave(event.now, out);
        break;
    }
    if (this.leaving) this.leaveWhenEmpty(out);
    return out;
  }

  /** Shares of slots that attempts could take now. */
  get free(): number {
    let busy = 0;
    for (const attempt of this.held.keys())
      if (this.hasSlot(attempt)) busy += this.sharesOf(attempt);
    return this.leaving ? 0 : this.info.slots * this.info.reducesPerSlot - busy;
  }

  /** Shares of attempts that could wait here for a slot: so many that none of them stands still between two. */
  private get ahead(): number {
    let waiting = 0;
    for (const [attempt] of this.waiting()) waiting += this.sharesOf(attempt);
    return this.leaving ? 0 : Math.max(0, this.info.slots * this.info.reducesPerSlot - waiting);
  }

  private sharesOf(attempt: AttemptId): number {
    return sharesOf(parseAttemptId(attempt)?.kind ?? "map", this.info);
  }

  private greet(atMs: number, out: AgentCommand[]): void {
    this.connection = { kind: "greeting", sentMs: atMs };
    this.seen = 0;
    this.unacknowledged.clear();
    const hello = { kind: "hello" as const, worker: this.info, attempts: [...this.held.keys()] };
    out.push({ kind: "send", message: hello });
  }

  private hear(message: MasterMessage, atMs: number, out: AgentCommand[]): void {
    if (message.kind === "welcome") return this.welcome(message, atMs, out);
    if (this.connection.kind !== "up") return;
    switch (message.kind) {
      case "renewed":
        return this.renewed(message.seq);
      case "grant":
        return this.granted(message.assignment, out);
      case "revoke":
        return this.stop(message.attempt, "revoked", message.reason, out);
      case "settled":
        return this.settled(message.attempt, message.won, out);
      case "prefetch":
        if (!this.leaving) out.push(message);
        return;
      case "forget":
        return void out.push(message);
      case "drain":
        out.push({ kind: "reconnect" });
    }
  }

  private welcome(
    { epoch, heartbeatMs, leaseMs }: Extract<MasterMessage, { kind: "welcome" }>,
    atMs: number,
    out: AgentCommand[],
  ): void {
    if (epoch < this.epoch) return void out.push({ kind: "reconnect" }); // W3
    this.epoch = epoch;
    if (this.connection.kind === "greeting") this.heardMs = this.connection.sentMs;
    this.connection = { kind: "up", heartbeatMs, leaseMs, nextHeartbeatMs: atMs + heartbeatMs };
    for (const [attempt, held] of this.held) {
      if (held.kind === "running" || held.kind === "waiting")
        held.leaseUntilMs = this.heardMs + leaseMs * LEASE_SHARE;
      if (held.kind === "sealed") this.report(attempt, held, out);
    }
    this.pull(out);
  }

  private pull(out: AgentCommand[]): void {
    if (this.connection.kind !== "up") return;
    const { free, seen, ahead } = this;
    out.push({ kind: "send", message: { kind: "ready", free, seen, ahead } });
  }

  private granted(assignment: Assignment, out: AgentCommand[]): void {
    if (this.connection.kind !== "up") return;
    this.seen += this.sharesOf(assignment.attempt);
    if (this.held.has(assignment.attempt)) return;
    const { attempt } = assignment;
    const shares = this.sharesOf(attempt);
    if (this.free < shares && this.ahead < shares) {
      // W4: it crossed with our leaving, or with a slot that is not free after all.
      const message = failure(attempt, "preempted", "no slot is free");
      return void out.push({ kind: "send", message });
    }
    const leaseUntilMs = this.heardMs + this.connection.leaseMs * LEASE_SHARE;
    this.held.set(attempt, { kind: "waiting", leaseUntilMs, assignment });
    this.runWaiting(out);
    this.nameHeirs(out);
  }

  /** In the order in which they were granted, but heirs first, and last those whose slot is not free yet. */
  private runWaiting(out: AgentCommand[]): void {
    const turn = ({ heirOf }: Waiting) => (heirOf === undefined ? 1 : this.hasSlot(heirOf) ? 2 : 0);
    const waiting = this.waiting().toSorted(([, a], [, b]) => turn(a) - turn(b));
    for (const [attempt, { leaseUntilMs, assignment }] of waiting) {
      if (this.free < this.sharesOf(attempt)) return;
      this.held.set(attempt, { kind: "running", leaseUntilMs, fed: false });
      out.push({ kind: "run", assignment });
    }
  }

  private hasSlot(attempt: AttemptId): boolean {
    const kind = this.held.get(attempt)?.kind;
    return kind === "running" || kind === "stopping";
  }

  private waiting(): [AttemptId, Waiting][] {
    return [...this.held].flatMap(([attempt, held]) =>
      held.kind === "waiting" ? [[attempt, held]] : [],
    );
  }

  private fed(attempt: AttemptId, out: AgentCommand[]): void {
    const held = this.held.get(attempt);
    if (held?.kind !== "running") return;
    held.fed = true;
    this.nameHeirs(out);
  }

  private nameHeirs(out: AgentCommand[]): void {
    const waiting = this.waiting();
    const served = new Set(waiting.map(([, { heirOf }]) => heirOf));
    const heirs = waiting.filter(
      ([, { heirOf, assignment }]) => heirOf === undefined && assignment.input.kind === "map",
    );
    for (const [after, held] of this.held) {
      if (held.kind !== "running" || !held.fed || served.has(after)) continue;
      const heir = heirs.shift()?.[1];
      if (heir === undefined) return;
      heir.heirOf = after;
      out.push({ kind: "expect", assignment: heir.assignment, after });
    }
  }

  private finished(attempt: AttemptId, result: TaskResult, out: AgentCommand[]): void {
    const held = this.held.get(attempt);
    if (held === undefined || held.kind === "sealed") return;
    if (held.kind === "stopping") {
      this.held.delete(attempt);
      // It may have finished while it was told to stop: nobody waits for that output.
      if (result.kind === "completed")
        out.push({ kind: "discard", attempt, output: result.output, bad: result.bad });
      this.tell(failure(attempt, held.class, held.message), out);
    } else if (result.kind === "completed") {
      const { output, stats, bad } = result;
      const sealed = { kind: "sealed" as const, output, stats, bad };
      this.held.set(attempt, sealed);
      if (this.connection.kind === "up") this.report(attempt, sealed, out);
    } else {
      this.held.delete(attempt);
      const { class: why, message, logTail, lostOutputs } = result;
      this.tell({ kind: "failed", attempt, class: why, message, logTail, lostOutputs }, out);
    }
    this.runWaiting(out);
    this.pull(out);
  }

  private report(
    attempt: AttemptId,
    sealed: Extract<Held, { kind: "sealed" }>,
    out: AgentCommand[],
  ): void {
    const { output, stats, bad } = sealed;
    out.push({ kind: "send", message: { kind: "completed", attempt, output, stats, bad } });
  }

  /** What is said while away is lost; the next hello, without the attempt, says it too. */
  private tell(message: WorkerMessage, out: AgentCommand[]): void {
    if (this.connection.kind === "up") out.push({ kind: "send", message });
  }

  private stop(attempt: AttemptId, why: FailureClass, message: string, out: AgentCommand[]): void {
    const held = this.held.get(attempt);
    if (held === undefined) {
      // Tell again: the first time may have been lost.
      return this.tell(failure(attempt, why, message), out);
    }
    if (held.kind === "waiting") {
      this.held.delete(attempt);
      if (held.heirOf !== undefined) out.push({ kind: "unexpect", attempt });
      this.tell(failure(attempt, why, message), out);
      return this.pull(out);
    }
    if (held.kind !== "running") return; // W2: a sealed one waits for `settled`.
    this.held.set(attempt, { kind: "stopping", class: why, message });
    out.push({ kind: "stop", attempt });
  }

  private settled(attempt: AttemptId, won: boolean, out: AgentCommand[]): void {
    const held = this.held.get(attempt);
    if (held?.kind !== "sealed") return;
    this.held.delete(attempt);
    if (!won) out.push({ kind: "discard", attempt, output: held.output, bad: held.bad });
  }

  private renewed(seq: number): void {
    if (this.connection.kind !== "up") return;
    const beat = this.unacknowledged.get(seq);
    if (beat === undefined) return;
    this.heardMs = beat.sentMs;
    const { leaseMs } = this.connection;
    for (const attempt of beat.attempts) {
      const held = this.held.get(attempt);
      if (held?.kind === "running" || held?.kind === "waiting")
        held.leaseUntilMs = Math.max(held.leaseUntilMs, beat.sentMs + leaseMs * LEASE_SHARE);
    }
    for (const older of this.unacknowledged.keys())
      if (older <= seq) this.unacknowledged.delete(older);
  }

  private heartbeat(atMs: number, progress: AttemptProgress[], out: AgentCommand[]): void {
    const { connection } = this;
    if (connection.kind !== "up" || atMs < connection.nextHeartbeatMs) return;
    connection.nextHeartbeatMs = atMs + connection.heartbeatMs;
    const known = new Map(progress.map((entry) => [entry.attempt, entry]));
    const attempts: AttemptProgress[] = [];
    for (const [attempt, held] of this.held) {
      // A stopping attempt keeps its lease until it is gone, so that nothing is swept under it.
      if (held.kind === "sealed") continue;
      attempts.push(known.get(attempt) ?? { attempt, ...newProgress() });
    }
    this.seq += 1;
    this.unacknowledged.set(this.seq, {
      sentMs: atMs,
      attempts: attempts.map((entry) => entry.attempt),
    });
    out.push({ kind: "send", message: { kind: "heartbeat", seq: this.seq, attempts } });
  }

  private expireLeases(atMs: number, out: AgentCommand[]): void {
    for (const [attempt, held] of this.held)
      if ((held.kind === "running" || held.kind === "waiting") && held.leaseUntilMs <= atMs)
        this.stop(attempt, "infra", "the lease could not be renewed", out);
  }

  /** No new grants; running attempts get their grace, then go back at no charge. */
  private leave(now: boolean, out: AgentCommand[]): void {
    if (!this.leaving) {
      this.leaving = true;
      this.pull(out);
    }
    for (const [attempt, { kind }] of this.held)
      if (kind === "waiting" || (now && kind === "running"))
        this.stop(attempt, "preempted", "the worker leaves", out);
  }

  private leaveWhenEmpty(out: AgentCommand[]): void {
    if (this.held.size > 0) return;
    this.tell({ kind: "goodbye" }, out);
    out.push({ kind: "left" });
    this.left = true;
  }
}

function failure(attempt: AttemptId, why: FailureClass, message: string): WorkerMessage {
  return { kind: "failed", attempt, class: why, message, logTail: "", lostOutputs: [] };
}
