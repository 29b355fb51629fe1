import { setTimeout as delay } from "node:timers/promises";
import type { Leadership, RecordWrite } from "../model/coordinator.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import { type JobId, pipelineOf, type WorkerId } from "../model/ids.ts";
import { isFinal, type JobView } from "../model/job.ts";
import type { Logger } from "../model/logger.ts";
import type { ObjectStore } from "../model/object_store.ts";
import type { WorkerLink, WorkerListener, WorkerMessage } from "../model/session.ts";
import type { Answer, Command, Event, Query } from "../scheduler/events.ts";
import { type Effect, Outbox } from "../scheduler/outbox.ts";
import type { State } from "../scheduler/state.ts";
import { step } from "../scheduler/step.ts";
import type { JobArchive } from "./archive.ts";
import { LostSources, StorageEffects } from "./effects.ts";
import { JobWatchers } from "./job_watchers.ts";

type Untimed<E> = E extends unknown ? Omit<E, "atMs" | "wallMs"> : never;
type NewEvent = Untimed<Event>;
type Unanswered<E> = E extends unknown ? Omit<E, "reply"> : never;
type Question = Unanswered<Untimed<Extract<Event, { reply: number }>>>;

export interface TermOptions {
  leadership: Leadership;
  state: State;
  /** What recovery wants done first. */
  commands: Command[];
  store: ObjectStore;
  logger: Logger;
}

const TICK_MS = 250;
/** A leader that is told to stop commits what it has decided, but not for longer than this. */
const HAND_OVER_MS = 5_000;
/** A question whose answer cannot be made durable in this time is answered `unavailable`. */
const ANSWER_MS = 10_000;

/**
 * One term of leadership: events go one at a time through the pure core, and its
 * commands through the outbox (E1, B1). The term ends when leadership does; it
 * then acknowledges nothing more, whatever was under way.
 */
export class LeaderTerm {
  readonly ended: Promise<void>;
  private readonly options: TermOptions;
  private readonly outbox = new Outbox();
  private readonly effects: StorageEffects;
  private readonly end = new AbortController();
  private readonly ticker: NodeJS.Timeout;
  private readonly links = new Map<number, WorkerLink>();
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private readonly watchers = new JobWatchers();
  private readonly looks = new Map<JobId, Promise<JobView>>();
  private readonly said = new WeakMap<JobView, string>();
  private sessions = 0;
  private questions = 0;
  private pumping = false;
  /** Why nothing can be recorded just now. */
  private trouble: string | undefined;

  constructor(options: TermOptions) {
    this.options = options;
    const { leadership, logger, store } = options;
    this.effects = new StorageEffects(store, logger, this.end.signal, (job, message) =>
      this.post({ kind: "trouble", job, message }),
    );
    this.ended = new Promise((resolve) => {
      this.end.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    leadership.over.addEventListener("abort", () => this.stop("leadership is over"), {
      once: true,
    });
    this.ticker = setInterval(() => this.post({ kind: "tick" }), TICK_MS);
    this.outbox.add(options.commands);
    this.post({ kind: "tick" });
  }

  /** Runs one event through the core. */
  private post(event: NewEvent): void {
    if (this.end.signal.aborted) return;
    const timed = { ...event, atMs: performance.now(), wallMs: Date.now() } as Event;
    this.outbox.add(step(this.options.state, timed));
    void this.pump();
  }

  /** Commits what is waiting, batch after batch; the only place where effects come to life. */
  private async pump(): Promise<void> {
    if (this.pumping) return;
    this.pumping = true;
    try {
      // What else arrives in this turn of the loop goes into the same batch.
      await Promise.resolve();
      for (let batch = this.outbox.next(); batch !== undefined; batch = this.outbox.next()) {
        if (batch.writes.length > 0) await this.commit(batch.writes);
        if (this.end.signal.aborted) return;
        if (!this.options.leadership.valid()) return this.stop("the lease is over");
        for (const effect of batch.effects) this.performSafely(effect);
      }
    } catch (error) {
      this.stop(messageOf(error));
    } finally {
      this.pumping = false;
    }
  }

  /** The same writes until they are known to be in, or this leader to be deposed. */
  private async commit(writes: RecordWrite[]): Promise<void> {
    for (let tries = 0; !this.end.signal.aborted; tries += 1) {
      try {
        await failurePoint("master.commit.before");
        await this.options.leadership.commit(writes);
        this.trouble = undefined;
        return await failurePoint("master.commit.after");
      } catch (error) {
        if (!MrError.is(error, "unavailable")) throw error;
        this.trouble = messageOf(error);
        this.options.logger.warn({ tries, error: messageOf(error) }, "commit failed; repeating it");
        await delay(Math.min(1_000, 50 * 2 ** tries));
      }
    }
  }

  /** One effect that cannot be carried out must not take the others, or the leader, with it. */
  private performSafely(effect: Effect): void {
    try {
      this.perform(effect);
    } catch (error) {
      this.options.logger.error({ effect: effect.kind, error: messageOf(error) }, "effect failed");
      if (effect.kind === "send") this.links.get(effect.session)?.close();
    }
  }

  private perform(effect: Effect): void {
    switch (effect.kind) {
      case "send":
        this.logGrant(effect);
        return this.links.get(effect.session)?.send(effect.message);
      case "close":
        return this.links.get(effect.session)?.close();
      case "reply": {
        const answer = this.waiting.get(effect.to);
        this.waiting.delete(effect.to);
        return answer?.(effect.answer);
      }
      case "changed":
        return this.wake(effect.job);
      case "lost": {
        const { attempt, worker, why, message } = effect;
        return this.options.logger.info({ attempt, worker, class: why, message }, "attempt lost");
      }
      case "plan":
        return this.background(this.plan(effect));
      case "cut":
        return this.background(this.cut(effect));
      case "collect":
        return this.background(
          this.effects.collect().then((found) => this.post({ kind: "collected", ...found })),
        );
      case "publish":
        return this.background(this.publish(effect));
      case "sweep":
        return this.background(
          this.effects
            .sweep(effect)
            .then(() => this.post({ kind: "swept", job: effect.job.id, what: effect.what })),
        );
    }
  }

  private logGrant({ worker, message }: Extract<Effect, { kind: "send" }>): void {
    if (message.kind !== "grant") return;
    const { attempt } = message.assignment;
    this.options.logger.debug({ attempt, worker }, "granted");
  }

  /** These end with the term, if not before; they report failures themselves. */
  private background(work: Promise<unknown>): void {
    work.catch((error) => {
      if (this.end.signal.aborted) return;
      this.options.logger.error({ error: messageOf(error) }, "a leader's effect failed");
    });
  }

  private async plan({ job }: Extract<Effect, { kind: "plan" }>): Promise<void> {
    let slots = 0;
    for (const worker of this.options.state.workers.values()) slots += worker.info.slots;
    try {
      const plan = await this.effects.plan(job, slots);
      this.post({ kind: "planned", job: job.id, plan });
    } catch (error) {
      if (this.end.signal.aborted) return;
      this.post({ kind: "plan-failed", job: job.id, message: messageOf(error) });
    }
  }

  private async publish(effect: Extract<Effect, { kind: "publish" }>): Promise<void> {
    const { job } = effect;
    try {
      const gone = await this.effects.publish(effect);
      if (gone.length > 0) this.post({ kind: "publish-failed", job, gone });
      else this.post({ kind: "published", job });
    } catch (error) {
      if (this.end.signal.aborted) return;
      this.post({ kind: "publish-refused", job, message: messageOf(error) });
    }
  }

  private async cut(effect: Extract<Effect, { kind: "cut" }>): Promise<void> {
    const { id } = effect.job;
    try {
      this.post({ kind: "cut", job: id, keys: await this.effects.cut(effect) });
    } catch (error) {
      if (this.end.signal.aborted) return;
      const lost = error instanceof LostSources ? error.attempts : [];
      this.post({ kind: "cut-failed", job: id, lost, message: messageOf(error) });
    }
  }

  private wake(job: JobId): void {
    const stage = this.options.state.jobs.get(job)?.stage.kind;
    this.watchers.wake(job, stage === undefined || stage === "ended");
    if (pipelineOf(job) !== job) this.watchers.wake(pipelineOf(job), false);
  }

  /** Asks the core; the answer comes once all it rests on is durable. */
  async ask(question: Question): Promise<Exclude<Answer, { kind: "error" }>> {
    if (this.end.signal.aborted) throw leaderGone();
    this.questions += 1;
    const reply = this.questions;
    const answer = await new Promise<Answer>((resolve) => {
      const timer = setTimeout(() => {
        this.waiting.delete(reply);
        resolve({ kind: "error", error: this.notRecorded() });
      }, ANSWER_MS);
      this.waiting.set(reply, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.post({ ...question, reply } as NewEvent);
    });
    if (answer.kind === "error") throw answer.error;
    return answer;
  }

  /** What was asked may still come to be; asking again does no harm. */
  private notRecorded(): MrError {
    const why = this.trouble === undefined ? "" : ` (${this.trouble})`;
    return new MrError("unavailable", `the coordinator takes no writes just now${why}; try again`);
  }

  async query<K extends Answer["kind"]>(
    query: Query,
    kind: K,
  ): Promise<Extract<Answer, { kind: K }>> {
    const answer = await this.ask({ kind: "query", query });
    if (answer.kind !== (kind as string)) throw new MrError("internal", "a mismatched answer");
    return answer as Extract<Answer, { kind: K }>;
  }

  /** Whether a request with this key was accepted before; its storage need not be checked again. */
  knows(idempotencyKey: string): boolean {
    if (idempotencyKey === "") return false;
    for (const job of this.options.state.jobs.values())
      if (job.record.idempotencyKey === idempotencyKey) return true;
    return false;
  }

  /** Of an ended job. */
  get archive(): Pick<JobArchive, "readTasks" | "readPlan"> {
    return this.effects.archive;
  }

  async *watch(id: JobId, signal: AbortSignal): AsyncIterable<JobView> {
    let told = "";
    const either = AbortSignal.any([signal, this.end.signal]);
    while (!signal.aborted) {
      const askedMs = performance.now();
      // Waits from before the question: what changes meanwhile is not missed.
      const news = this.watchers.news(id, askedMs, either);
      const job = await this.look(id);
      const now = this.saidOf(job);
      if (now !== told) yield job;
      told = now;
      if (isFinal(job.state)) return;
      await news;
    }
  }

  /** Whoever looks at a job in one moment sees the same: its watchers are woken together. */
  private look(id: JobId): Promise<JobView> {
    let looking = this.looks.get(id);
    if (looking === undefined) {
      looking = this.query({ kind: "job", id }, "job").then(({ job }) => job);
      this.looks.set(id, looking);
      // Not for whoever begins to wait later: what changed in between would be missed.
      setImmediate(() => this.looks.delete(id));
    }
    return looking;
  }

  /** What of a view may change, as text. */
  private saidOf(job: JobView): string {
    let said = this.said.get(job);
    if (said === undefined) {
      said = JSON.stringify({ ...job, spec: undefined });
      this.said.set(job, said);
    }
    return said;
  }

  attach(link: WorkerLink): WorkerListener {
    if (this.end.signal.aborted) throw leaderGone();
    this.sessions += 1;
    const session = this.sessions;
    let worker: WorkerId | undefined;
    this.links.set(session, link);
    return {
      hear: (message: WorkerMessage) => {
        // Read after its stream had ended: nobody would ever say that this worker is gone.
        if (!this.links.has(session)) return;
        if ((worker === undefined) !== (message.kind === "hello"))
          throw new MrError("invalid", "session: hello comes first, and once");
        if (message.kind === "hello") worker = message.worker.id;
        this.post({ kind: "worker-message", worker: worker ?? "", session, message });
      },
      gone: () => {
        this.links.delete(session);
        if (worker !== undefined) this.post({ kind: "worker-disconnected", worker, session });
      },
    };
  }

  /** A planned hand-over: everything decided is committed and told, then others may lead. */
  async handOver(): Promise<void> {
    clearInterval(this.ticker);
    const deadlineMs = performance.now() + HAND_OVER_MS;
    while ((!this.outbox.empty || this.pumping) && !this.end.signal.aborted) {
      // What cannot be recorded is nobody's yet: others may lead without it.
      if (performance.now() > deadlineMs) break;
      await this.pump();
      await delay(1);
    }
    for (const link of this.links.values()) link.send({ kind: "drain" });
    await this.options.leadership.resign();
    this.stop("handed over");
  }

  private stop(reason: string): void {
    if (this.end.signal.aborted) return;
    this.options.logger.info({ epoch: this.options.leadership.epoch, reason }, "the term ends");
    clearInterval(this.ticker);
    this.end.abort(leaderGone());
    // Whoever leads, or thinks so, lets go: the record may still be ours.
    void this.options.leadership.resign();
    for (const link of this.links.values()) link.close();
    this.links.clear();
    const error = leaderGone();
    for (const answer of this.waiting.values()) answer({ kind: "error", error });
    this.waiting.clear();
  }
}

function leaderGone(): MrError {
  return new MrError("unavailable", "this master no longer leads");
}
