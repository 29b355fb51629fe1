import { COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, type RecordWrite } from "../model/coordinator.ts";
import type { Command } from "./events.ts";

export type Effect = Exclude<Command, { kind: "put" }>;

/** What is committed together, and what may take effect once it is durable. */
export interface Batch {
  writes: RecordWrite[];
  effects: Effect[];
}

/** A step, or as much of it as fits one commit. */
interface Sized {
  commands: Command[];
  records: number;
  bytes: number;
}

/**
 * Group commit, kept pure: commands in, batches out, in order (E1).
 *
 * B1: at most one batch is under way; its effects are released by its success only.
 * B2: a step's puts stand in one batch, unless they alone are more than a batch
 *     holds (a plan, a sweep: these count only by a record that follows them).
 */
export class Outbox {
  private steps: Sized[] = [];

  add(commands: Command[]): void {
    if (commands.length === 0) return;
    const whole = { commands, ...sizeOf(commands) };
    if (fits(whole.records, whole.bytes)) this.steps.push(whole);
    else for (const part of cut(commands)) this.steps.push(part);
  }

  get empty(): boolean {
    return this.steps.length === 0;
  }

  /** Takes the longest run of steps that fits one commit; undefined when there is nothing. */
  next(): Batch | undefined {
    if (this.steps.length === 0) return undefined;
    const writes = new Map<string, RecordWrite>();
    const effects: Effect[] = [];
    let bytes = 0;
    let taken = 0;
    for (const step of this.steps) {
      if (taken > 0 && step.records > 0 && !fits(writes.size + step.records, bytes + step.bytes))
        break;
      bytes += step.bytes;
      taken += 1;
      for (const command of step.commands) {
        // One commit may name a key once: of two writes to it the later one counts.
        if (command.kind === "put")
          for (const write of command.writes) writes.set(write.key, write);
        else effects.push(command);
      }
    }
    this.steps = this.steps.slice(taken);
    return { writes: [...writes.values()], effects };
  }
}

function sizeOf(step: Command[]): { records: number; bytes: number } {
  let records = 0;
  let bytes = 0;
  for (const command of step) {
    if (command.kind !== "put") continue;
    records += command.writes.length;
    for (const write of command.writes)
      bytes += write.key.length + Buffer.byteLength(write.value ?? "");
  }
  return { records, bytes };
}

function fits(records: number, bytes: number): boolean {
  return records <= COMMIT_RECORDS_MAX && bytes <= COMMIT_BYTES_MAX;
}

/** Makes several of a step with more puts than a commit holds. */
function cut(commands: Command[]): Sized[] {
  const parts: Sized[] = [];
  let part: Sized = { commands: [], records: 0, bytes: 0 };
  for (const command of commands) {
    const { records, bytes } = sizeOf([command]);
    if (part.commands.length > 0 && !fits(part.records + records, part.bytes + bytes)) {
      parts.push(part);
      part = { commands: [], records: 0, bytes: 0 };
    }
    part.commands.push(command);
    part.records += records;
    part.bytes += bytes;
  }
  parts.push(part);
  return parts;
}
