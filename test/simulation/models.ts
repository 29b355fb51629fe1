import assert from "node:assert/strict";
import type { RecordWrite } from "../../internal/model/coordinator.ts";
import type { JobSpec } from "../../internal/model/job.ts";
import type { MasterMessage, WorkerMessage } from "../../internal/model/session.ts";
import { type Assignment, mapOutputName, type TaskOutput } from "../../internal/model/task.ts";
import type { Event } from "../../internal/scheduler/events.ts";
import { type Batch, type Effect, Outbox } from "../../internal/scheduler/outbox.ts";
import { recover } from "../../internal/scheduler/recover.ts";
import { DEFAULT_SCHEDULER_CONFIG, type State } from "../../internal/scheduler/state.ts";
import { step } from "../../internal/scheduler/step.ts";
import { type AgentCommand, type AgentEvent, WorkerAgent } from "../../internal/worker/agent.ts";
import type { History } from "./history.ts";
import { checkState } from "./state_check.ts";
import type { World } from "./world.ts";

const TTL_MS = 3_000;
const CONFIG = { ...DEFAULT_SCHEDULER_CONFIG, infraFailuresMax: 10_000 };

/** etcd, or the SQLite file: leases, epochs, and commits that are fenced when they land. */
export class CoordinatorModel {
  readonly records = new Map<string, string>();
  private readonly world: World;
  private readonly history: History;
  private epoch = 0;
  private holder: MasterModel | undefined;
  private deadlineMs = 0;
  /** Turned off by the mutation check. */
  fencing = true;

  constructor(world: World, history: History) {
    this.world = world;
    this.history = history;
  }

  leader(): MasterModel | undefined {
    return this.deadlineMs > this.world.nowMs ? this.holder : undefined;
  }

  tryElect(master: MasterModel): number | undefined {
    if (this.deadlineMs > this.world.nowMs) return undefined;
    this.holder = master;
    this.deadlineMs = this.world.nowMs + TTL_MS;
    this.epoch += 1;
    return this.epoch;
  }

  renew(epoch: number): boolean {
    if (epoch !== this.epoch || this.deadlineMs <= this.world.nowMs) return false;
    this.deadlineMs = this.world.nowMs + TTL_MS;
    return true;
  }

  resign(epoch: number): void {
    if (epoch === this.epoch) this.deadlineMs = this.world.nowMs;
  }

  /** False: fenced. */
  commit(epoch: number, writes: RecordWrite[]): boolean {
    if (this.fencing && (epoch !== this.epoch || this.deadlineMs <= this.world.nowMs)) return false;
    for (const { key, value } of writes) {
      this.history.recorded(key, value);
      if (value === undefined) this.records.delete(key);
      else this.records.set(key, value);
    }
    return true;
  }
}

/** A stream: messages arrive in order, late, or with a break not at all. */
export class Link {
  private readonly world: World;
  private lastMs = { up: 0, down: 0 };
  broken = false;
  readonly session: number;
  toMaster: (message: WorkerMessage) => void = () => {};
  toWorker: (message: MasterMessage) => void = () => {};
  masterLost: () => void = () => {};
  workerLost: () => void = () => {};

  constructor(world: World, session: number) {
    this.world = world;
    this.session = session;
  }

  send(way: "up" | "down", deliver: () => void): void {
    if (this.broken) return;
    const delayMs = this.world.chance(0.05)
      ? this.world.between(50, 1_500)
      : this.world.between(0, 10);
    const atMs = Math.max(this.lastMs[way], this.world.nowMs + delayMs);
    this.lastMs[way] = atMs;
    this.world.after(atMs - this.world.nowMs, () => {
      if (!this.broken) deliver();
    });
  }

  /** Each side notices in its own time. */
  break(): void {
    if (this.broken) return;
    this.broken = true;
    this.world.after(this.world.between(0, 3_000), () => this.masterLost());
    this.world.after(this.world.between(0, 3_000), () => this.workerLost());
  }
}

type Leading = {
  kind: "leading";
  epoch: number;
  state: State;
  outbox: Outbox;
  validUntilMs: number;
  committing: boolean;
};

export class MasterModel {
  readonly name: string;
  private readonly world: World;
  private readonly history: History;
  private readonly coordinator: CoordinatorModel;
  mode: { kind: "down" } | { kind: "standby" } | Leading = { kind: "standby" };
  /** Stands still until then, as under SIGSTOP: what arrives waits. */
  pausedUntilMs = 0;
  readonly links = new Map<number, Link>();
  private waiting: (() => void)[] = [];
  private replies = new Map<number, (job: string) => void>();
  private questions = 0;
  /** Turned off by the mutation check. */
  acknowledgeBeforeCommit = false;

  constructor(name: string, world: World, history: History, coordinator: CoordinatorModel) {
    this.name = name;
    this.world = world;
    this.history = history;
    this.coordinator = coordinator;
    this.tick();
  }

  /** Runs now, or when the pause ends; not at all if the process has died meanwhile. */
  whenAwake(work: () => void): void {
    if (this.world.nowMs >= this.pausedUntilMs) return work();
    this.waiting.push(work);
    this.world.after(this.pausedUntilMs - this.world.nowMs, () => {
      const work = this.waiting;
      this.waiting = [];
      for (const run of work) this.whenAwake(run);
    });
  }

  private tick(): void {
    this.world.after(250, () => {
      this.whenAwake(() => this.beat());
      this.tick();
    });
  }

  private beat(): void {
    const { mode } = this;
    if (mode.kind === "standby") {
      const epoch = this.coordinator.tryElect(this);
      if (epoch !== undefined) this.lead(epoch);
    } else if (mode.kind === "leading") {
      if (this.world.nowMs >= mode.validUntilMs) return this.demote();
      const sentMs = this.world.nowMs;
      this.world.after(this.world.between(1, 20), () => {
        if (!this.coordinator.renew(mode.epoch)) return;
        this.whenAwake(() => {
          mode.validUntilMs = Math.max(mode.validUntilMs, sentMs + TTL_MS * 0.8);
        });
      });
      this.post({ kind: "tick" });
    }
  }

  private lead(epoch: number): void {
    this.world.note(`${this.name} leads, epoch ${epoch}`);
    const records = [...this.coordinator.records].map(([key, value]) => ({ key, value }));
    const at = { atMs: this.world.nowMs, wallMs: this.world.nowMs };
    const { state, commands } = recover(CONFIG, epoch, records, at);
    const validUntilMs = this.world.nowMs + TTL_MS * 0.8;
    const outbox = new Outbox();
    this.mode = { kind: "leading", epoch, state, outbox, validUntilMs, committing: false };
    outbox.add(commands);
    this.post({ kind: "tick" });
  }

  demote(): void {
    if (this.mode.kind !== "leading") return;
    this.world.note(`${this.name} steps down`);
    this.coordinator.resign(this.mode.epoch);
    this.mode = { kind: "standby" };
    this.dropLinks();
  }

  crash(): void {
    this.world.note(`${this.name} dies`);
    this.mode = { kind: "down" };
    this.waiting = [];
    this.pausedUntilMs = 0;
    this.dropLinks();
    this.world.after(this.world.between(500, 8_000), () => {
      if (this.mode.kind === "down") this.mode = { kind: "standby" };
    });
  }

  private dropLinks(): void {
    for (const link of this.links.values()) link.break();
    this.links.clear();
    this.replies.clear();
  }

  post(event: Untimed<Event>): void {
    const { mode } = this;
    if (mode.kind !== "leading") return;
    const timed = { ...event, atMs: this.world.nowMs, wallMs: this.world.nowMs } as Event;
    mode.outbox.add(step(mode.state, timed));
    checkState(mode.state);
    this.pump(mode);
  }

  private pump(mode: Leading): void {
    if (mode.committing || this.mode !== mode) return;
    const batch = mode.outbox.next();
    if (batch === undefined) return;
    if (this.acknowledgeBeforeCommit) this.perform(mode, batch.effects);
    if (batch.writes.length === 0) return this.released(mode, batch);
    mode.committing = true;
    this.commit(mode, batch);
  }

  private commit(mode: Leading, batch: Batch): void {
    const again = () => this.whenAwake(() => this.mode === mode && this.commit(mode, batch));
    if (this.world.chance(0.02)) return this.world.after(500, again); // the request is lost
    this.world.after(this.world.between(1, 15), () => {
      const landed = this.coordinator.commit(mode.epoch, batch.writes);
      if (this.world.chance(0.02)) return this.world.after(500, again); // the reply is lost
      this.world.after(this.world.between(1, 15), () =>
        this.whenAwake(() => {
          if (this.mode !== mode) return;
          if (!landed) return this.demote();
          mode.committing = false;
          this.released(mode, batch);
        }),
      );
    });
  }

  private released(mode: Leading, batch: Batch): void {
    if (this.world.nowMs >= mode.validUntilMs) return this.demote();
    if (!this.acknowledgeBeforeCommit) this.perform(mode, batch.effects);
    this.pump(mode);
  }

  private perform(mode: Leading, effects: Effect[]): void {
    for (const effect of effects) this.performOne(mode, effect);
  }

  private performOne(mode: Leading, effect: Effect): void {
    const later = (minMs: number, maxMs: number, work: () => void) =>
      this.world.after(this.world.between(minMs, maxMs), () =>
        this.whenAwake(() => this.mode === mode && work()),
      );
    switch (effect.kind) {
      case "send": {
        const link = this.links.get(effect.session);
        if (link === undefined) return;
        if (effect.message.kind === "grant") this.history.granted(effect.message.assignment);
        return link.send("down", () => link.toWorker(effect.message));
      }
      case "close":
        return this.links.get(effect.session)?.break();
      case "reply": {
        const { answer } = effect;
        if (answer.kind !== "submitted") return;
        this.history.told(answer.job.id);
        return this.replies.get(effect.to)?.(answer.job.id);
      }
      case "plan":
        return later(1, 200, () => this.plan(effect.job));
      case "publish": {
        const last = effect.receipts.length;
        effect.receipts.forEach((receipt, i) => {
          later(i * 10, i * 10 + 9, () => this.history.publishedPart(effect.job, receipt));
        });
        return later(last * 10, last * 10 + 50, () => {
          this.history.marked(effect.job, effect.marker, last);
          this.post({ kind: "published", job: effect.job });
        });
      }
      case "sweep":
        return later(1, 50, () => {
          for (const name of [...this.history.objects.keys()])
            if (effect.what.intermediate && name.startsWith(`${effect.job.id}/`))
              this.history.objects.delete(name);
          this.post({ kind: "swept", job: effect.job.id });
        });
      default:
        return;
    }
  }

  private plan({ id, spec }: { id: string; spec: JobSpec }): void {
    if (spec.m_num === 13) return this.post({ kind: "plan-failed", job: id, message: "unlucky" });
    const splits = Array.from({ length: spec.m_num }, () => []);
    this.post({ kind: "planned", job: id, plan: { kind: "splits", splits } });
  }

  submit(id: string, spec: JobSpec, idempotencyKey: string, told: (job: string) => void): void {
    this.whenAwake(() => {
      if (this.mode.kind !== "leading") return;
      this.questions += 1;
      this.replies.set(this.questions, told);
      this.post({ kind: "submit", reply: this.questions, id, spec, idempotencyKey });
    });
  }

  accept(link: Link): void {
    if (this.mode.kind !== "leading") return link.break();
    this.links.set(link.session, link);
    let worker = "";
    link.toMaster = (message) =>
      this.whenAwake(() => {
        if (!this.links.has(link.session)) return;
        if (message.kind === "hello") worker = message.worker.id;
        this.post({ kind: "worker-message", worker, session: link.session, message });
      });
    link.masterLost = () =>
      this.whenAwake(() => {
        this.links.delete(link.session);
        this.post({ kind: "worker-disconnected", worker, session: link.session });
      });
  }
}

type Untimed<E> = E extends unknown ? Omit<E, "atMs" | "wallMs"> : never;
type UntimedAgent<E> = E extends unknown ? Omit<E, "atMs"> : never;

export interface WorkerHooks {
  findLeader(): MasterModel | undefined;
  newSession(): number;
}

export class WorkerModel {
  private readonly world: World;
  private readonly history: History;
  private readonly hooks: WorkerHooks;
  private readonly agent: WorkerAgent;
  private readonly running = new Set<string>();
  private readonly slots: number;
  readonly name: string;
  link: Link | undefined;
  alive = true;
  pausedUntilMs = 0;

  constructor(name: string, world: World, history: History, hooks: WorkerHooks) {
    this.name = name;
    this.world = world;
    this.history = history;
    this.hooks = hooks;
    this.slots = world.between(1, 3);
    this.agent = new WorkerAgent({ id: name, host: name, pid: 1, slots: this.slots });
    this.connect();
    this.tick();
  }

  private whenAwake(work: () => void): void {
    if (!this.alive) return;
    if (this.world.nowMs >= this.pausedUntilMs) return work();
    this.world.after(this.pausedUntilMs - this.world.nowMs, () => this.whenAwake(work));
  }

  private tick(): void {
    if (!this.alive) return;
    this.world.after(200, () => {
      this.whenAwake(() => this.dispatch({ kind: "tick", progress: [] }));
      this.tick();
    });
  }

  private connect(): void {
    if (!this.alive) return;
    const leader = this.hooks.findLeader();
    if (leader === undefined || leader.mode.kind !== "leading") {
      this.world.after(this.world.between(50, 500), () => this.whenAwake(() => this.connect()));
      return;
    }
    const link = new Link(this.world, this.hooks.newSession());
    this.link = link;
    link.toWorker = (message) =>
      this.whenAwake(() => {
        if (this.link !== link) return;
        if (message.kind === "settled") this.history.settled(message.attempt, message.won);
        this.dispatch({ kind: "message", message });
      });
    link.workerLost = () =>
      this.whenAwake(() => {
        if (this.link !== link) return;
        this.link = undefined;
        this.dispatch({ kind: "disconnected" });
        this.world.after(this.world.between(10, 500), () => this.whenAwake(() => this.connect()));
      });
    leader.accept(link);
    this.dispatch({ kind: "connected" });
  }

  private dispatch(event: UntimedAgent<AgentEvent>): void {
    const timed = { ...event, atMs: this.world.nowMs } as AgentEvent;
    for (const command of this.agent.step(timed)) this.perform(command);
  }

  private perform(command: AgentCommand): void {
    switch (command.kind) {
      case "send": {
        const { link } = this;
        return link?.send("up", () => link.toMaster(command.message));
      }
      case "run":
        return this.run(command.assignment);
      case "stop":
        return this.world.after(this.world.between(0, 100), () =>
          this.whenAwake(() => {
            if (!this.running.delete(command.attempt)) return;
            const result = { kind: "failed" as const, class: "revoked" as const, message: "" };
            this.dispatch({
              kind: "finished",
              attempt: command.attempt,
              result: { ...result, logTail: "" },
            });
          }),
        );
      case "discard":
        if (command.output.kind === "segments") this.history.objects.delete(command.output.object);
        return;
      case "reconnect":
        return this.link?.break();
      case "left":
        this.alive = false;
    }
  }

  private run(assignment: Assignment): void {
    const { attempt } = assignment;
    this.running.add(attempt);
    assert.ok(this.running.size <= this.slots, `W4: ${this.name} runs more than it has slots`);
    const tookMs = this.world.chance(0.1)
      ? this.world.between(5_000, 20_000)
      : this.world.between(10, 3_000);
    this.world.after(tookMs, () =>
      this.whenAwake(() => {
        if (!this.running.delete(attempt)) return;
        const roll = this.world.random();
        if (roll < 0.04) return this.fail(attempt, "user");
        if (roll < 0.08) return this.fail(attempt, "infra");
        this.history.read(attempt);
        const output = outputOf(assignment);
        if (output.kind === "segments") this.history.objects.set(output.object, this);
        const stats = {
          recordsIn: 1,
          bytesIn: 1,
          recordsOut: 1,
          bytesOut: 1,
          wallMs: 1,
          counters: {},
        };
        this.dispatch({ kind: "finished", attempt, result: { kind: "completed", output, stats } });
      }),
    );
  }

  private fail(attempt: string, why: "user" | "infra"): void {
    const result = { kind: "failed" as const, class: why, message: "simulated", logTail: "" };
    this.dispatch({ kind: "finished", attempt, result });
  }

  crash(): void {
    this.world.note(`${this.name} dies`);
    this.alive = false;
    this.link?.break();
  }

  leave(): void {
    this.world.note(`${this.name} leaves`);
    this.dispatch({ kind: "leave", now: false });
    this.world.after(2_000, () =>
      this.whenAwake(() => this.dispatch({ kind: "leave", now: true })),
    );
  }
}

function outputOf(assignment: Assignment): TaskOutput {
  const { attempt, job, input } = assignment;
  if (input.kind === "map" && job.reduces > 0)
    return { kind: "segments", object: mapOutputName(attempt), size: 1, indexOffset: 1 };
  const index = Number(attempt.split("/")[1]?.slice(2));
  const slash = job.output.indexOf("/");
  const name = `${job.output.slice(slash + 1)}/part-${String(index).padStart(5, "0")}`;
  const receipt = { container: job.output.slice(0, slash), name, size: 1, token: attempt };
  return { kind: "part", receipt };
}
