import assert from "node:assert/strict";
import type { RecordWrite } from "../../internal/model/coordinator.ts";
import type { JobSpec } from "../../internal/model/job_request.ts";
import type { DoneRecord, JobRecord } from "../../internal/model/records.ts";
import { attemptOfMapOutput } from "../../internal/model/task.ts";
import type { Event, Plan } from "../../internal/scheduler/events.ts";
import { type Batch, type Effect, Outbox } from "../../internal/scheduler/outbox.ts";
import { recover } from "../../internal/scheduler/recover.ts";
import { DEFAULT_SCHEDULER_CONFIG, type State } from "../../internal/scheduler/state.ts";
import { step } from "../../internal/scheduler/step.ts";
import { TTL_MS } from "./coordinator_model.ts";
import type { Link } from "./link_model.ts";
import { ProcessModel } from "./process_model.ts";
import type { Scene } from "./scene.ts";
import { checkState, isBackup } from "./state_check.ts";

/** Nobody runs a failed reducer again here: what is left over would not be told from what is kept. */
const CONFIG = { ...DEFAULT_SCHEDULER_CONFIG, infraFailuresMax: 10_000, keepFailedMs: 0 };
const TICK_MS = 250;
const REPEAT_MS = 500;
/** The share of its lease that a leader counts on, by its own clock (C4). */
const TERM_MS = TTL_MS * 0.8;

type Untimed<E> = E extends unknown ? Omit<E, "atMs" | "wallMs"> : never;

type Leading = {
  kind: "leading";
  epoch: number;
  state: State;
  outbox: Outbox;
  /** By the master's own clock. */
  validUntilMs: number;
  committing: boolean;
  /** Commits of this term that are known to have landed. */
  commits: number;
};

/** Where a master can be made to die. */
export const POINTS = [
  "recorded, not told",
  "a loss is recorded",
  "half published",
  "published",
  "half swept",
] as const;
type Point = (typeof POINTS)[number];

/** A master: the real core, outbox and recovery, with the clock and the world around them faked. */
export class MasterModel extends ProcessModel {
  mode: { kind: "down" } | { kind: "standby" } | Leading = { kind: "standby" };
  /** It dies when it next comes to this point. */
  diesAt: Point | undefined;
  private readonly links = new Map<number, Link>();
  private replies = new Map<number, (job: string) => void>();
  private questions = 0;
  private sessions = 0;

  constructor(name: string, scene: Scene) {
    super(name, scene);
    this.tick();
  }

  private tick(): void {
    this.scene.world.after(this.clock.timer(TICK_MS), () => {
      this.whenAwake(() => this.beat());
      this.tick();
    });
  }

  private beat(): void {
    const { mode } = this;
    if (mode.kind === "standby") {
      const epoch = this.scene.coordinator.tryElect(this);
      if (epoch !== undefined) this.lead(epoch);
    } else if (mode.kind === "leading") {
      if (this.termIsOver(mode)) return this.demote();
      this.renew(mode);
      this.post({ kind: "tick" });
    }
  }

  private renew(mode: Leading): void {
    const { world, coordinator, mutation } = this.scene;
    const sentMs = this.clock.nowMs;
    world.after(world.between(1, 20), () => {
      if (!coordinator.renew(mode.epoch) || world.chance(0.02)) return;
      this.whenAwake(() => {
        const fromMs = mutation.shell === "term-from-reply" ? this.clock.nowMs : sentMs;
        mode.validUntilMs = Math.max(mode.validUntilMs, fromMs + TERM_MS);
      });
    });
  }

  private termIsOver(mode: Leading): boolean {
    return this.scene.mutation.shell !== "endless-term" && this.clock.nowMs >= mode.validUntilMs;
  }

  private lead(epoch: number): void {
    const { world, coordinator, mutation } = this.scene;
    world.note(`${this.name} leads, epoch ${epoch}`);
    const stored = [...coordinator.records].map(([key, value]) => ({ key, value }));
    const records = mutation.recovered?.(stored) ?? stored;
    const at = { atMs: this.clock.nowMs, wallMs: this.clock.wallMs };
    const { state, commands } = recover(CONFIG, epoch, records, at);
    const validUntilMs = this.clock.nowMs + TERM_MS;
    const outbox = new Outbox();
    this.mode = {
      kind: "leading",
      epoch,
      state,
      outbox,
      validUntilMs,
      committing: false,
      commits: 0,
    };
    outbox.add(commands);
    this.post({ kind: "tick" });
  }

  demote(): void {
    if (this.mode.kind !== "leading") return;
    this.scene.world.note(`${this.name} steps down`);
    this.scene.coordinator.resign(this.mode.epoch);
    this.mode = { kind: "standby" };
    this.dropLinks();
  }

  crash(): void {
    const { world } = this.scene;
    world.note(`${this.name} dies`);
    this.mode = { kind: "down" };
    this.forget();
    this.diesAt = undefined;
    this.dropLinks();
    world.after(world.between(500, 8_000), () => {
      if (this.mode.kind === "down") this.mode = { kind: "standby" };
    });
  }

  /** @returns whether it has died of it. */
  private comesTo(point: Point): boolean {
    if (this.diesAt !== point) return false;
    this.scene.world.note(`${this.name} comes to: ${point}`);
    this.crash();
    return true;
  }

  private dropLinks(): void {
    for (const link of this.links.values()) link.break();
    this.links.clear();
    this.replies.clear();
  }

  post(untimed: Untimed<Event>): void {
    const { mode } = this;
    if (mode.kind !== "leading") return;
    const { mutation, history } = this.scene;
    const timed = { ...untimed, atMs: this.clock.nowMs, wallMs: this.clock.wallMs } as Event;
    const event = mutation.event?.(timed) ?? timed;
    const commands = step(mode.state, event);
    if (commands.length > 0) checkState(mode.state);
    if (event.kind === "collected")
      history.seen["leftovers swept"] += commands.filter(({ kind }) => kind === "sweep").length;
    mode.outbox.add(mutation.commands?.(commands, event, mode.state) ?? commands);
    this.pump(mode);
  }

  private pump(mode: Leading): void {
    if (mode.committing || this.mode !== mode) return;
    const batch = mode.outbox.next();
    if (batch === undefined) return;
    const { mutation } = this.scene;
    batch.writes = mutation.commit?.(batch.writes) ?? batch.writes;
    if (mutation.shell === "acknowledge-first") this.perform(mode, batch);
    if (batch.writes.length === 0) return this.released(mode, batch);
    mode.committing = true;
    this.commit(mode, batch);
  }

  private commit(mode: Leading, batch: Batch): void {
    const { world, coordinator, mutation } = this.scene;
    const again = () => this.whenAwake(() => this.mode === mode && this.commit(mode, batch));
    const unknown = mutation.shell === "unknown-is-done" ? () => committed("done") : again;
    const committed = (outcome: "done" | "fenced") =>
      this.whenAwake(() => {
        if (this.mode !== mode) return;
        if (outcome === "fenced") return this.demote();
        mode.committing = false;
        mode.commits += 1;
        this.released(mode, batch);
      });
    if (world.chance(0.02)) return world.after(REPEAT_MS, unknown); // the request is lost
    // A request may be under way for longer than the term of who sent it.
    const delayMs = world.chance(0.02) ? world.between(100, 6_000) : world.between(1, 15);
    world.after(delayMs, () => {
      const nth = mode.commits + 1;
      const land = () => coordinator.commit(mode.epoch, nth, batch.writes);
      const outcome = land();
      // The network may deliver a request once more that was given up for lost.
      if (world.chance(0.02)) world.after(world.between(50, 6_000), land);
      // Nobody answers, or the reply is lost.
      if (outcome === "unavailable" || world.chance(0.02)) return world.after(REPEAT_MS, unknown);
      world.after(world.between(1, 15), () => committed(outcome));
    });
  }

  private released(mode: Leading, batch: Batch): void {
    if (batch.writes.length > 0 && this.comesTo("recorded, not told")) return;
    if (batch.writes.some(isLoss) && this.comesTo("a loss is recorded")) return;
    if (this.termIsOver(mode)) return this.demote();
    if (this.scene.mutation.shell !== "acknowledge-first") this.perform(mode, batch);
    this.pump(mode);
  }

  private perform(mode: Leading, { effects, writes }: Batch): void {
    const { coordinator, history } = this.scene;
    assert.ok(coordinator.holds(mode.epoch), `C4: ${this.name} acts after its term`);
    for (const effect of effects) {
      if (effect.kind === "send" && effect.message.kind === "grant") {
        const { assignment } = effect.message;
        if (this.links.has(effect.session)) history.granted(assignment, writes);
        if (isBackup(mode.state, assignment.attempt)) history.seen.backups += 1;
      }
      this.performOne(mode, effect);
    }
  }

  private performOne(mode: Leading, effect: Effect): void {
    switch (effect.kind) {
      case "send": {
        const link = this.links.get(effect.session);
        return link?.send("down", true, () => link.toWorker(effect.message));
      }
      case "close":
        return this.links.get(effect.session)?.break();
      case "reply": {
        const { answer } = effect;
        if (answer.kind !== "submitted") return;
        this.scene.history.told(answer.job.id);
        return this.replies.get(effect.to)?.(answer.job.id);
      }
      case "plan":
        return this.later(mode, 1, 200, () => this.plan(effect.job));
      case "cut":
        return this.later(mode, 1, 200, () => this.cut(effect));
      case "publish":
        return this.publish(mode, effect);
      case "sweep":
        return this.later(mode, 1, 50, () => this.sweep(mode, effect));
      case "collect":
        return this.later(mode, 1, 100, () => {
          const maps = this.scene.storage.jobs();
          this.later(mode, 1, 50, () => this.post({ kind: "collected", maps, results: [] }));
        });
      case "changed":
        return;
    }
  }

  /** What a leader does over time; it ends with its term. */
  private later(mode: Leading, minMs: number, maxMs: number, work: () => void): void {
    const { world } = this.scene;
    world.after(world.between(minMs, maxMs), () =>
      this.whenAwake(() => this.mode === mode && work()),
    );
  }

  private plan({ id, spec, pipeline }: JobRecord): void {
    if (pipeline !== undefined) this.scene.history.planned(id, spec.data);
    if (spec.m_num === 13) return this.post({ kind: "plan-failed", job: id, message: "unlucky" });
    this.post({ kind: "planned", job: id, plan: this.planOf(spec) });
  }

  /** No two of them cut alike. */
  private cut({ job, sources }: Extract<Effect, { kind: "cut" }>): void {
    const { world, storage } = this.scene;
    const unread = sources.filter(({ object }) => storage.objects.get(object) === undefined);
    const lost = unread.flatMap(({ object }) => attemptOfMapOutput(object) ?? []);
    if (lost.length > 0)
      return this.post({ kind: "cut-failed", job: job.id, lost, message: "lost" });
    const key = () => Buffer.from(String(world.between(0, 1e9)));
    this.post({ kind: "cut", job: job.id, keys: Array.from({ length: job.spec.r_num - 1 }, key) });
  }

  private planOf(spec: JobSpec): Plan {
    if (spec.phase !== "reduce")
      return { kind: "splits", splits: Array.from({ length: spec.m_num }, () => []) };
    const manifest = this.scene.storage.markers.get(spec.from) ?? "";
    const lines = manifest.split("\n").filter((line) => line !== "");
    return { kind: "done", done: lines.map((line) => JSON.parse(line) as DoneRecord) };
  }

  private publish(mode: Leading, effect: Extract<Effect, { kind: "publish" }>): void {
    const { storage } = this.scene;
    const { job, receipts, marker } = effect;
    for (const { name, token } of receipts)
      if (!name.includes("_bad/") && this.scene.world.chance(0.002)) storage.gone.add(token);
    const gone = receipts.filter(({ token }) => storage.gone.has(token));
    receipts.forEach((receipt, i) => {
      if (gone.includes(receipt)) return;
      this.later(mode, i * 10, i * 10 + 9, () => {
        storage.publish(job, receipt);
        this.comesTo("half published");
      });
    });
    const isRefused = this.scene.world.chance(0.003) && !storage.markers.has(job);
    const last = receipts.length * 10;
    this.later(mode, last, last + 50, () => {
      if (isRefused) return this.post({ kind: "publish-refused", job, message: "refused" });
      if (gone.length > 0) return this.post({ kind: "publish-failed", job, gone });
      storage.mark(job, marker);
      if (!this.comesTo("published")) this.post({ kind: "published", job });
    });
  }

  private sweep(mode: Leading, { job, what }: Extract<Effect, { kind: "sweep" }>): void {
    const { storage } = this.scene;
    const objects = what.objects === "none" ? [] : storage.ofJob(job.id);
    this.later(mode, 1, 50, () => {
      for (const object of objects) {
        storage.delete(object);
        if (this.comesTo("half swept")) return;
      }
      this.post({ kind: "swept", job: job.id, what });
    });
  }

  submit(id: string, spec: JobSpec, idempotencyKey: string, told: (job: string) => void): void {
    this.whenAwake(() => {
      if (this.mode.kind !== "leading") return;
      this.questions += 1;
      this.replies.set(this.questions, told);
      const owner = id.charCodeAt(id.length - 1) % 2 === 0 ? "even" : "odd";
      const asked = { id, spec, idempotencyKey, owner, scripts: {} };
      this.post({ kind: "submit", reply: this.questions, ...asked });
    });
  }

  accept(link: Link): void {
    if (this.mode.kind !== "leading") return link.break();
    this.sessions += 1;
    const session = this.sessions;
    this.links.set(session, link);
    let worker = "";
    link.toMaster = (message) =>
      this.whenAwake(() => {
        if (!this.links.has(session)) return;
        if (message.kind === "hello") worker = message.worker.id;
        this.post({ kind: "worker-message", worker, session, message });
      });
    link.masterLost = () =>
      this.whenAwake(() => {
        this.links.delete(session);
        this.post({ kind: "worker-disconnected", worker, session });
      });
  }
}

function isLoss({ key, value }: RecordWrite): boolean {
  return key.split("/")[2] === "lost" && value !== undefined;
}
