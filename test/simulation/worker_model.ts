import assert from "node:assert/strict";
import {
  type Assignment,
  mapOutputName,
  newStats,
  type TaskOutput,
} from "../../internal/model/task.ts";
import { type AgentCommand, type AgentEvent, WorkerAgent } from "../../internal/worker/agent.ts";
import { failedResult } from "../../internal/worker/task_context.ts";
import type { History } from "./history.ts";
import { Link } from "./link_model.ts";
import type { MasterModel } from "./master_model.ts";
import type { World } from "./world.ts";

type UntimedAgent<E> = E extends unknown ? Omit<E, "atMs"> : never;

export interface WorkerHooks {
  findLeader(): MasterModel | undefined;
  newSession(): number;
}

/** A worker: the real agent; scripts are only time that passes, and chance. */
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
        const repeatable = command.message.kind !== "hello";
        return link?.send("up", repeatable, () => link.toMaster(command.message));
      }
      case "run":
        return this.run(command.assignment);
      case "stop":
        return this.world.after(this.world.between(0, 100), () =>
          this.whenAwake(() => {
            if (!this.running.delete(command.attempt)) return;
            const result = failedResult("revoked", "");
            this.dispatch({
              kind: "finished",
              attempt: command.attempt,
              result,
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
        this.link?.close();
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
        const stats = newStats();
        const result = { kind: "completed" as const, output, stats, bad: undefined };
        this.dispatch({ kind: "finished", attempt, result });
      }),
    );
  }

  private fail(attempt: string, why: "user" | "infra"): void {
    this.dispatch({ kind: "finished", attempt, result: failedResult(why, "simulated") });
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
    return {
      kind: "segments",
      object: mapOutputName(attempt),
      size: 1,
      indexOffset: 1,
      digest: "",
    };
  const index = Number(attempt.split("/")[1]?.slice(2));
  const slash = job.output.indexOf("/");
  const name = `${job.output.slice(slash + 1)}/part-${String(index).padStart(5, "0")}`;
  const receipt = { container: job.output.slice(0, slash), name, size: 1, token: attempt };
  return { kind: "part", receipt };
}
