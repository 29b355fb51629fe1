import assert from "node:assert/strict";
import { type AttemptId, parseAttemptId, partName, taskId } from "../../internal/model/ids.ts";
import { joinName, locationOf } from "../../internal/model/names.ts";
import {
  type Assignment,
  attemptOfMapOutput,
  mapOutputName,
  newStats,
  type Receipt,
  sharesOf,
  type TaskOutput,
  type WorkerInfo,
} from "../../internal/model/task.ts";
import { type AgentCommand, type AgentEvent, WorkerAgent } from "../../internal/worker/agent.ts";
import { failedResult, type TaskResult } from "../../internal/worker/task_context.ts";
import { isSteady } from "./history.ts";
import { LeaseWatch } from "./lease_watch.ts";
import { Link } from "./link_model.ts";
import { ProcessModel } from "./process_model.ts";
import type { Scene } from "./scene.ts";

const TICK_MS = 200;
const GRACE_MS = 2_000;

type UntimedAgent<E> = E extends unknown ? Omit<E, "atMs"> : never;

/** A worker: the real agent; scripts are only time that passes, and chance. */
export class WorkerModel extends ProcessModel {
  readonly agent: WorkerAgent;
  link: Link | undefined;
  alive = true;
  private cutOffUntilMs = 0;
  private readonly leases = new LeaseWatch();
  /** Of scripts that have ended: what they made, of which the agent is yet to hear. */
  private readonly running = new Map<AttemptId, TaskResult | undefined>();
  /** Whose input has been asked for, and after which attempt it is to run. */
  private readonly expected = new Map<AttemptId, AttemptId>();
  private readonly info: WorkerInfo;

  constructor(name: string, scene: Scene) {
    super(name, scene);
    const [slots, reducesPerSlot] = [scene.world.between(1, 3), scene.world.between(1, 3)];
    this.info = { id: name, host: name, pid: 1, slots, reducesPerSlot };
    this.agent = new WorkerAgent(this.info);
    this.connect();
    this.tick();
  }

  override whenAwake(work: () => void): void {
    if (this.alive) super.whenAwake(() => this.alive && work());
  }

  private later(minMs: number, maxMs: number, work: () => void): void {
    const { world } = this.scene;
    world.after(world.between(minMs, maxMs), () => this.whenAwake(work));
  }

  private tick(): void {
    if (!this.alive) return;
    this.scene.world.after(this.clock.timer(TICK_MS), () => {
      this.whenAwake(() => {
        this.dispatch({ kind: "tick", progress: [] });
        this.leases.check(this.clock.nowMs);
      });
      this.tick();
    });
  }

  private connect(): void {
    const { world, history, coordinator } = this.scene;
    const leader = coordinator.leader();
    const isCutOff = world.nowMs < this.cutOffUntilMs;
    if (isCutOff || leader?.mode.kind !== "leading")
      return this.later(50, 500, () => this.connect());
    const link = new Link(world);
    this.link = link;
    link.toWorker = (message) =>
      this.whenAwake(() => {
        if (this.link !== link) return;
        if (message.kind === "settled") history.settled(message.attempt, message.won);
        this.leases.heard(message);
        this.dispatch({ kind: "message", message });
      });
    link.workerLost = () =>
      this.whenAwake(() => {
        if (this.link !== link) return;
        this.link = undefined;
        this.dispatch({ kind: "disconnected" });
        this.later(10, 500, () => this.connect());
      });
    leader.accept(link);
    this.dispatch({ kind: "connected" });
  }

  private dispatch(untimed: UntimedAgent<AgentEvent>): void {
    const event = { ...untimed, atMs: this.clock.nowMs } as AgentEvent;
    const wanted = this.agent.step(event);
    const commands = this.scene.mutation.agent?.(wanted, event, this) ?? wanted;
    for (const command of commands) this.perform(command);
    for (const [attempt, after] of this.expected) {
      assert.equal(this.agent.held.get(attempt)?.kind, "waiting", `W5: ${attempt} is expected`);
      assert.ok(this.running.has(after), `W5: ${attempt} is not run after ${after}`);
    }
  }

  private perform(command: AgentCommand): void {
    switch (command.kind) {
      case "send": {
        const { link } = this;
        const repeatable = command.message.kind !== "hello";
        if (link !== undefined) this.leases.said(command.message, this.clock.nowMs);
        return link?.send("up", repeatable, () => link.toMaster(command.message));
      }
      case "run":
        return this.run(command.assignment);
      case "stop":
        this.leases.ended(command.attempt);
        return this.later(0, 100, () => {
          const made = this.running.get(command.attempt);
          this.finish(command.attempt, made ?? failedResult("revoked", ""));
        });
      case "discard":
        if (command.output.kind === "segments") this.scene.storage.delete(command.output.object);
        return;
      case "expect": {
        const { assignment, after } = command;
        assert.ok(![...this.expected.values()].includes(after), `W5: ${after} has two heirs`);
        return void this.expected.set(assignment.attempt, after);
      }
      case "unexpect":
        return void this.expected.delete(command.attempt);
      case "prefetch":
      case "forget":
        return; // Nothing rests on it.
      case "reconnect":
        return this.link?.break();
      case "left":
        this.alive = false;
        this.link?.close();
    }
  }

  private run(assignment: Assignment): void {
    const { world } = this.scene;
    const { attempt } = assignment;
    this.running.set(attempt, undefined);
    this.expected.delete(attempt);
    this.leases.started(attempt);
    let shares = this.info.slots * this.info.reducesPerSlot;
    for (const id of this.running.keys())
      shares -= sharesOf(parseAttemptId(id)?.kind ?? "map", this.info);
    assert.ok(shares >= 0, `W4: ${this.name} runs more than it has slots for`);
    const beganMs = this.clock.nowMs;
    const tookMs = world.chance(0.2) ? world.between(3_000, 20_000) : world.between(10, 3_000);
    const readMs = world.between(0, tookMs);
    this.later(readMs, readMs, () => {
      const lost = this.running.has(attempt) ? this.read(assignment) : [];
      if (lost.length > 0) return this.finish(attempt, lostResult(lost));
      if (assignment.input.kind === "map") this.dispatch({ kind: "fed", attempt });
      this.later(tookMs - readMs, tookMs - readMs, () => {
        if (!this.running.has(attempt)) return;
        const result = this.outcome(assignment);
        if (result.kind === "completed") result.stats.wallMs = this.clock.nowMs - beganMs;
        this.running.set(attempt, result);
        this.later(0, 50, () => this.finish(attempt, result));
      });
    });
  }

  /** @returns the map attempts whose outputs cannot be read. */
  private read({ attempt, input }: Assignment): AttemptId[] {
    if (input.kind !== "reduce") return [];
    const { world, history, storage } = this.scene;
    const digests = input.sources.map(({ object }) => storage.objects.get(object));
    const lost = input.sources.filter((_, i) => digests[i] === undefined);
    if (lost.length === 0) history.read(attempt, digests);
    const attempts = lost.flatMap(({ object }) => attemptOfMapOutput(object) ?? []);
    if (lost.length > 0) world.note(`${attempt} cannot read ${attempts.join(" ")}`);
    return attempts;
  }

  private finish(attempt: AttemptId, result: TaskResult): void {
    if (!this.running.delete(attempt)) return;
    this.leases.ended(attempt);
    this.dispatch({ kind: "finished", attempt, result });
  }

  private outcome(assignment: Assignment): TaskResult {
    const { world, storage } = this.scene;
    const { job, input } = assignment;
    const roll = world.random();
    if (roll < 0.04) return failedResult("user", "simulated");
    if (roll < 0.08) return failedResult("infra", "simulated");
    const output = this.outputOf(assignment);
    if (output.kind === "segments") storage.write(output);
    const isBad = input.kind === "map" && job.badRecordsMax > 0 && world.chance(0.1);
    const bad = isBad ? { records: 1, receipt: badReceipt(assignment) } : undefined;
    return { kind: "completed", output, stats: newStats(), bad };
  }

  private outputOf({ attempt, job, input }: Assignment): TaskOutput {
    const name = parseAttemptId(attempt);
    if (input.kind === "map" && job.reduces > 0) {
      // A mapper that is not deterministic may still make the same twice.
      const version = isSteady(job.name) ? 0 : this.scene.world.between(1, 3);
      const digest = `${name?.task}, version ${version}`;
      return {
        kind: "segments",
        object: mapOutputName(attempt),
        size: 1,
        indexOffset: 1,
        digest,
        sizes: "",
      };
    }
    return { kind: "part", receipt: receiptOf(job.output, partName(name?.index ?? 0), attempt) };
  }

  crash(): void {
    this.scene.world.note(`${this.name} dies`);
    this.alive = false;
    this.link?.break();
  }

  /** It works on, and cannot reach the leader. */
  cutOff(forMs: number): void {
    const { world } = this.scene;
    world.note(`${this.name} is cut off for ${forMs} ms`);
    this.cutOffUntilMs = world.nowMs + forMs;
    this.link?.break();
  }

  leave(): void {
    const { world } = this.scene;
    world.note(`${this.name} leaves`);
    this.dispatch({ kind: "leave", now: false });
    world.after(this.clock.timer(GRACE_MS), () =>
      this.whenAwake(() => this.dispatch({ kind: "leave", now: true })),
    );
  }
}

function lostResult(lostOutputs: AttemptId[]): TaskResult {
  const message = "outputs are lost";
  return { kind: "failed", class: "infra", message, logTail: "", lostOutputs };
}

function badReceipt({ attempt, job }: Assignment): Receipt {
  const name = parseAttemptId(attempt);
  return receiptOf(job.badOutput, taskId("map", name?.index ?? 0), `${attempt}-bad`);
}

function receiptOf(output: string, name: string, token: string): Receipt {
  const { container, prefix } = locationOf(output);
  return { container, name: joinName(prefix, name), size: 1, token };
}
