import { attemptId, parseTaskId, partName, taskId } from "../../internal/model/ids.ts";
import type { FailureClass } from "../../internal/model/job.ts";
import { parseJobRequest } from "../../internal/model/job_request.ts";
import { joinName, locationOf } from "../../internal/model/names.ts";
import type { MasterMessage, WorkerMessage } from "../../internal/model/session.ts";
import {
  type BadRecords,
  mapOutputName,
  newStats,
  type Receipt,
  type TaskOutput,
} from "../../internal/model/task.ts";
import type { Answer, Command, Event, SweepScope } from "../../internal/scheduler/events.ts";
import { recover } from "../../internal/scheduler/recover.ts";
import {
  DEFAULT_SCHEDULER_CONFIG,
  newState,
  outputOf,
  type State,
} from "../../internal/scheduler/state.ts";
import { step } from "../../internal/scheduler/step.ts";

/**
 * Runs the scheduler core by words a person reads: one event a line, and after
 * it the commands the core answers with. See README.md for the words.
 */
export class ScenarioInterpreter {
  private state: State = newState(DEFAULT_SCHEDULER_CONFIG, 1);
  private atMs = 0;
  private session = 0;
  private epoch = 1;
  private readonly sessions = new Map<string, number>();
  private readonly jobs = new Map<string, string>();
  private readonly records = new Map<string, string>();

  /** @returns the commands, a line each. */
  run(line: string): string[] {
    const [word = "", ...rest] = line.split(/\s+/);
    const named = new Map<string, string>();
    const plain: string[] = [];
    for (const part of rest) {
      const at = part.indexOf("=");
      if (at > 0) named.set(part.slice(0, at), part.slice(at + 1));
      else plain.push(part);
    }
    if (word === "takeover") return this.takeover();
    const event = this.eventOf(word, plain, named);
    return this.show(step(this.state, event));
  }

  private eventOf(word: string, plain: string[], named: Map<string, string>): Event {
    const [first = "", second = "", third = ""] = plain;
    const time = { atMs: this.atMs, wallMs: this.atMs };
    switch (word) {
      case "submit": {
        const spec = parseJobRequest({
          mapper: "m.py",
          reducer: "r.py",
          data: "text",
          m_num: Number(named.get("maps") ?? 1),
          r_num: Number(named.get("reduces") ?? 1),
          priority: Number(named.get("priority") ?? 0),
          max_attempts: Number(named.get("tries") ?? 4),
          max_bad_records: Number(named.get("bad") ?? 0),
          ...(named.has("phase") && { phase: named.get("phase") }),
        });
        const id = `20260101-000000-${first.toLowerCase().padEnd(6, "0")}`;
        this.jobs.set(first, id);
        return {
          ...time,
          kind: "submit",
          reply: 1,
          id,
          spec,
          idempotencyKey: named.get("key") ?? "",
          owner: named.get("owner") ?? "",
          scripts: {},
        };
      }
      case "planned": {
        const id = this.jobs.get(first) ?? "";
        const maps = this.state.jobs.get(id)?.record.spec.m_num ?? 0;
        const splits = Array.from({ length: maps }, () => []);
        return { ...time, kind: "planned", job: id, plan: { kind: "splits", splits } };
      }
      case "plan-failed":
        return {
          ...time,
          kind: "plan-failed",
          job: this.jobs.get(first) ?? "",
          message: "no input",
        };
      case "published":
        return { ...time, kind: word, job: this.jobs.get(first) ?? "" };
      case "publish-refused":
        return { ...time, kind: word, job: this.jobs.get(first) ?? "", message: "no right to it" };
      case "publish-failed": {
        const job = this.jobs.get(first) ?? "";
        return { ...time, kind: word, job, gone: plain.slice(1).map((at) => this.partOf(job, at)) };
      }
      case "swept": {
        const what: SweepScope = { objects: "all", logs: false };
        return { ...time, kind: word, job: this.jobs.get(first) ?? "", what };
      }
      case "collected": {
        const jobs = plain.map((name) => this.jobs.get(name) ?? name);
        return { ...time, kind: "collected", maps: jobs, results: [] };
      }
      case "cancel":
        return { ...time, kind: "cancel", reply: 1, id: this.jobs.get(first) ?? "" };
      case "advance":
        this.atMs += Number(first);
        return { atMs: this.atMs, wallMs: this.atMs, kind: "tick" };
      case "disconnect": {
        const session = this.sessions.get(first) ?? 0;
        return { ...time, kind: "worker-disconnected", worker: first, session };
      }
      default:
        return { ...time, ...this.said(word, first, [second, third, ...plain.slice(3)], named) };
    }
  }

  private said(word: string, worker: string, rest: string[], named: Map<string, string>) {
    if (word === "hello") {
      this.session += 1;
      this.sessions.set(worker, this.session);
    }
    const session = this.sessions.get(worker) ?? 0;
    const message = this.messageOf(word, worker, rest, named);
    return { kind: "worker-message" as const, worker, session, message };
  }

  private messageOf(
    word: string,
    worker: string,
    rest: string[],
    named: Map<string, string>,
  ): WorkerMessage {
    const attempts = rest.filter((part) => part !== "").map((part) => this.attemptOf(part));
    const [attempt = ""] = attempts;
    const count = (name: string) => Number(named.get(name) ?? 0);
    switch (word) {
      case "hello": {
        const [slots, reducesPerSlot] = [count("slots") || 2, count("reduces") || 1];
        const info = { id: worker, host: "h", pid: 1, slots, reducesPerSlot };
        return { kind: "hello", worker: info, attempts };
      }
      case "ready":
        return { kind: "ready", free: count("free"), seen: count("seen"), ahead: count("ahead") };
      case "heartbeat": {
        const progress = attempts.map((id) => ({
          attempt: id,
          bytesIn: 0,
          bytesTotal: 0,
          status: "",
          counters: {},
        }));
        return { kind: "heartbeat", seq: 1, attempts: progress };
      }
      case "completed": {
        const digest = named.get("digest") ?? "same";
        const stats = { ...newStats(), wallMs: count("took") };
        const bad = named.has("bad") ? this.badOf(attempt, count("bad")) : undefined;
        return { kind: "completed", attempt, output: this.outputOf(attempt, digest), stats, bad };
      }
      case "failed": {
        const why = (named.get("class") ?? "user") as FailureClass;
        const lostOutputs = named.has("lost") ? [this.attemptOf(named.get("lost") ?? "")] : [];
        return { kind: "failed", attempt, class: why, message: "boom", logTail: "", lostOutputs };
      }
      case "goodbye":
        return { kind: "goodbye" };
      default:
        throw new Error(`no such word: ${word}`);
    }
  }

  /** J1/m-00000/1-1 -> the attempt's id. */
  private attemptOf(text: string): string {
    const [job = "", task = "", attempt = ""] = text.split("/");
    const [epoch, grant] = attempt.split("-").map(Number);
    return attemptId(this.jobs.get(job) ?? job, task, epoch ?? 0, grant ?? 0);
  }

  private partOf(id: string, index: string): Receipt {
    const job = this.state.jobs.get(id);
    const place = locationOf(job === undefined ? "x" : outputOf(job.record));
    const name = joinName(place.prefix, partName(Number(index)));
    return { container: place.container, name, size: 1, token: `${id}/part` };
  }

  private badOf(attempt: string, records: number): BadRecords {
    const [id = "", task = ""] = attempt.split("/");
    const job = this.state.jobs.get(id);
    const place = locationOf(job === undefined ? "x" : outputOf(job.record));
    const name = joinName(place.prefix, `_bad/${task}`);
    return { records, receipt: { container: place.container, name, size: 1, token: `${id}/bad` } };
  }

  private outputOf(attempt: string, digest: string): TaskOutput {
    const [id = "", task = ""] = attempt.split("/");
    const job = this.state.jobs.get(id);
    const parsed = parseTaskId(task);
    if (
      job === undefined ||
      parsed === undefined ||
      (parsed.kind === "map" && job.reduce.tasks.length > 0)
    )
      return {
        kind: "segments",
        object: mapOutputName(attempt),
        size: 1,
        indexOffset: 1,
        digest,
        sizes: "",
      };
    return { kind: "part", receipt: this.partOf(id, String(parsed.index)) };
  }

  /** The leader dies; another one reads the records. */
  private takeover(): string[] {
    this.epoch += 1;
    const records = [...this.records].map(([key, value]) => ({ key, value }));
    const at = { atMs: this.atMs, wallMs: this.atMs };
    const { state, commands } = recover(DEFAULT_SCHEDULER_CONFIG, this.epoch, records, at);
    this.state = state;
    return this.show(commands);
  }

  private show(commands: Command[]): string[] {
    return commands.flatMap((command) => this.showOne(command)).map((line) => this.shorten(line));
  }

  private showOne(command: Command): string[] {
    switch (command.kind) {
      case "put":
        return command.writes.map(({ key, value }) => {
          if (value === undefined) this.records.delete(key);
          else this.records.set(key, value);
          return value === undefined ? `delete ${key}` : `put ${key}`;
        });
      case "send":
        return [`${command.worker} <- ${showMessage(command.message)}`];
      case "close":
        return [`${command.worker} close`];
      case "reply":
        return [`reply ${showAnswer(command.answer)}`];
      case "plan":
        return [`plan ${command.job.id}`];
      case "publish":
        return [
          `publish ${command.job}: ${command.receipts.length} parts, then ${command.marker.name}`,
        ];
      case "sweep": {
        const { objects, logs } = command.what;
        const what = [
          objects === "all" && "intermediate",
          objects === "maps" && "map outputs",
          logs && "logs",
        ];
        return [`sweep ${command.job.id}: ${what.filter(Boolean).join(", ") || "nothing"}`];
      }
      case "collect":
        return ["collect"];
      default:
        return [];
    }
  }

  private shorten(line: string): string {
    let short = line;
    for (const [name, id] of this.jobs) short = short.replaceAll(id, name);
    return short;
  }
}

function showMessage(message: MasterMessage): string {
  switch (message.kind) {
    case "welcome":
      return `welcome to epoch ${message.epoch}`;
    case "grant": {
      const { attempt, input } = message.assignment;
      if (input.kind === "reduce") return `grant ${attempt} of ${input.sources.length} map outputs`;
      return `grant ${attempt}${input.narrow ? " narrowing" : ""}`;
    }
    case "revoke":
      return `revoke ${message.attempt}: ${message.reason}`;
    case "prefetch": {
      const task = taskId("reduce", message.partition);
      return `prefetch ${message.job.id}/${task} from ${message.maps.map((map) => taskId("map", map)).join(" ")}`;
    }
    case "forget":
      return `forget ${message.job}`;
    case "settled":
      return `settled ${message.attempt} ${message.won ? "won" : "lost"}`;
    default:
      return message.kind;
  }
}

function showAnswer(answer: Answer): string {
  switch (answer.kind) {
    case "error":
      return `error ${answer.error.code}: ${answer.error.message}`;
    case "submitted":
      return `submitted ${answer.job.id} ${answer.job.state}${answer.repeated ? " (repeated)" : ""}`;
    case "job":
      return `${answer.job.id} ${answer.job.state}`;
    default:
      return answer.kind;
  }
}
