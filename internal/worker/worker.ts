import { setTimeout as delay } from "node:timers/promises";
import { messageOf } from "../model/errors.ts";
import type { Logger } from "../model/logger.ts";
import { CONTAINER } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import type { LeaderDialer, LeaderStream } from "../model/session.ts";
import type { WorkerInfo } from "../model/task.ts";
import { type AgentCommand, type AgentEvent, WorkerAgent } from "./agent.ts";
import type { Slots, SlotsOptions } from "./slots.ts";

type Untimed<E> = E extends unknown ? Omit<E, "atMs"> : never;

export interface WorkerOptions {
  info: WorkerInfo;
  dialer: LeaderDialer;
  store: ObjectStore;
  logger: Logger;
  slots: (listener: Pick<SlotsOptions, "onFinished" | "onFed">) => Slots;
}

const TICK_MS = 200;
const RETRY_MS_MAX = 1_000;
/** A leader that does not say welcome within this time is given up. */
const WELCOME_MS = 5_000;

/** The shell around the agent: the stream, the slots, the clock. */
export class Worker {
  private readonly options: WorkerOptions;
  private readonly agent: WorkerAgent;
  private readonly slots: Slots;
  private readonly stopping = new AbortController();
  private stream: LeaderStream | undefined;
  private ticker: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;
  private inSession = false;

  constructor(options: WorkerOptions) {
    this.options = options;
    this.agent = new WorkerAgent(options.info);
    this.slots = options.slots({
      onFinished: (attempt, result) => this.dispatch({ kind: "finished", attempt, result }),
      onFed: (attempt) => this.dispatch({ kind: "fed", attempt }),
    });
  }

  /** Whether a leader knows of this worker, as far as it has heard. */
  get hasSession(): boolean {
    return this.inSession;
  }

  start(): void {
    this.ticker ??= setInterval(
      () => this.dispatch({ kind: "tick", progress: this.slots.progress() }),
      TICK_MS,
    );
    this.running ??= this.run();
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping;
    for (let tries = 0; !signal.aborted; tries += 1) {
      try {
        const stream = await this.options.dialer.dial();
        if (signal.aborted) return stream.abort();
        if (await this.talk(stream)) tries = 0;
      } catch (error) {
        this.options.logger.warn({ error: messageOf(error) }, "no session with a leader");
      }
      const waitMs = Math.min(RETRY_MS_MAX, 50 * 2 ** tries) * (0.5 + Math.random());
      await delay(waitMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** One session; true if the leader ever spoke. */
  private async talk(stream: LeaderStream): Promise<boolean> {
    let heard = false;
    const patience = setTimeout(() => stream.abort(), WELCOME_MS);
    this.stream = stream;
    try {
      this.dispatch({ kind: "connected" });
      for await (const message of stream.messages()) {
        clearTimeout(patience);
        if (!heard) this.options.logger.info({ said: message.kind }, "session with the leader");
        heard = true;
        this.inSession = true;
        this.dispatch({ kind: "message", message });
      }
    } catch (error) {
      this.options.logger.warn({ error: messageOf(error) }, "the session broke");
    } finally {
      clearTimeout(patience);
      this.inSession = false;
      this.stream = undefined;
      this.dispatch({ kind: "disconnected" });
    }
    return heard;
  }

  private dispatch(event: Untimed<AgentEvent>): void {
    const timed = { ...event, atMs: performance.now() } as AgentEvent;
    for (const command of this.agent.step(timed)) this.perform(command);
  }

  private perform(command: AgentCommand): void {
    switch (command.kind) {
      case "send":
        return this.stream?.send(command.message);
      case "run":
        return this.slots.run(command.assignment);
      case "stop":
        return this.slots.stop(command.attempt);
      case "expect":
        return this.slots.expect(command.assignment, command.after);
      case "unexpect":
        return this.slots.unexpect(command.attempt);
      case "prefetch":
        return this.slots.prefetch(command);
      case "forget":
        return this.slots.forget(command.job);
      case "discard":
        return void this.discard(command);
      case "reconnect":
        return this.stream?.abort();
      case "left":
        this.stream?.close();
        this.stopping.abort();
    }
  }

  /** Best effort: what is missed here is swept with the job. */
  private async discard({
    output,
    bad,
  }: Extract<AgentCommand, { kind: "discard" }>): Promise<void> {
    try {
      if (bad !== undefined) await this.options.store.discard(bad.receipt);
      if (output.kind === "part") await this.options.store.discard(output.receipt);
      else await this.options.store.delete(CONTAINER.intermediate, output.object);
    } catch (error) {
      this.options.logger.warn({ error: messageOf(error) }, "a lost output was not deleted");
    }
  }

  /** Leaves in good order: running attempts get the grace, then go back to the leader. */
  async stop(graceMs: number): Promise<void> {
    this.dispatch({ kind: "leave", now: false });
    const hurry = setTimeout(() => this.dispatch({ kind: "leave", now: true }), graceMs);
    // A leader that cannot be told must not keep us for ever.
    const giveUp = setTimeout(() => this.stopping.abort(), graceMs + 3_000);
    await new Promise<void>((resolve) => {
      if (this.stopping.signal.aborted) resolve();
      this.stopping.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    clearTimeout(hurry);
    clearTimeout(giveUp);
    clearInterval(this.ticker);
    const cut = setTimeout(() => this.stream?.abort(), 500);
    await this.running;
    clearTimeout(cut);
    await this.slots.close();
  }
}
