import type { RecordWrite } from "../../internal/model/coordinator.ts";
import type { JobSpec } from "../../internal/model/job.ts";
import type { Event } from "../../internal/scheduler/events.ts";
import { type Batch, type Effect, Outbox } from "../../internal/scheduler/outbox.ts";
import { recover } from "../../internal/scheduler/recover.ts";
import { DEFAULT_SCHEDULER_CONFIG, type State } from "../../internal/scheduler/state.ts";
import { step } from "../../internal/scheduler/step.ts";
import { type CoordinatorModel, TTL_MS } from "./coordinator_model.ts";
import type { History } from "./history.ts";
import type { Link } from "./link_model.ts";
import { checkState } from "./state_check.ts";
import type { World } from "./world.ts";

const CONFIG = { ...DEFAULT_SCHEDULER_CONFIG, infraFailuresMax: 10_000 };

type Untimed<E> = E extends unknown ? Omit<E, "atMs" | "wallMs"> : never;

type Leading = {
  kind: "leading";
  epoch: number;
  state: State;
  outbox: Outbox;
  validUntilMs: number;
  committing: boolean;
};

/** A master: the real core, outbox and recovery, with the clock and the world around them faked. */
export class MasterModel {
  readonly name: string;
  private readonly world: World;
  private readonly history: History;
  private readonly coordinator: CoordinatorModel<MasterModel>;
  mode: { kind: "down" } | { kind: "standby" } | Leading = { kind: "standby" };
  /** Stands still until then, as under SIGSTOP: what arrives waits. */
  pausedUntilMs = 0;
  readonly links = new Map<number, Link>();
  private waiting: (() => void)[] = [];
  private replies = new Map<number, (job: string) => void>();
  private questions = 0;
  /** Turned off by the mutation check. */
  acknowledgeBeforeCommit = false;

  constructor(
    name: string,
    world: World,
    history: History,
    coordinator: CoordinatorModel<MasterModel>,
  ) {
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
    if (this.acknowledgeBeforeCommit) this.perform(mode, batch);
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
    if (!this.acknowledgeBeforeCommit) this.perform(mode, batch);
    this.pump(mode);
  }

  private perform(mode: Leading, { effects, writes }: Batch): void {
    for (const effect of effects) this.performOne(mode, effect, writes);
  }

  private performOne(mode: Leading, effect: Effect, commit: RecordWrite[]): void {
    const later = (minMs: number, maxMs: number, work: () => void) =>
      this.world.after(this.world.between(minMs, maxMs), () =>
        this.whenAwake(() => this.mode === mode && work()),
      );
    switch (effect.kind) {
      case "send": {
        const link = this.links.get(effect.session);
        if (link === undefined) return;
        if (effect.message.kind === "grant")
          this.history.granted(effect.message.assignment, commit);
        return link.send("down", true, () => link.toWorker(effect.message));
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
      this.post({ kind: "submit", reply: this.questions, id, spec, idempotencyKey, scripts: {} });
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
