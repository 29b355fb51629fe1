import { COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, type RecordWrite } from "../model/coordinator.ts";
import type { Command } from "./events.ts";

export type Effect = Exclude<Command, { kind: "put" }>;

/** What is committed together, and what may take effect once it is durable. */
export interface Batch {
  writes: RecordWrite[];
  effects: Effect[];
}

/**
 * Group commit, kept pure: commands in, batches out, in order (E1).
 *
 * B1: at most one batch is under way; its effects are released by its success only.
 * B2: a step's puts stand in one batch, unless they alone are more than a batch
 *     holds (a plan, a sweep: these count only by a record that follows them).
 */
export class Outbox {
  private steps: Command[][] = [];

  add(commands: Command[]): void {
    if (commands.length === 0) return;
    for (const step of splitOversized(commands)) this.steps.push(step);
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
      const size = sizeOf(step);
      const full =
        writes.size + size.records > COMMIT_RECORDS_MAX || bytes + size.bytes > COMMIT_BYTES_MAX;
      if (taken > 0 && size.records > 0 && full) break;
      bytes += size.bytes;
      taken += 1;
      for (const command of step) {
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

/** Cuts a step with more puts than a commit holds into several. */
function splitOversized(step: Command[]): Command[][] {
  const { records, bytes } = sizeOf(step);
  if (records <= COMMIT_RECORDS_MAX && bytes <= COMMIT_BYTES_MAX) return [step];
  const parts: Command[][] = [];
  let part: Command[] = [];
  let size = { records: 0, bytes: 0 };
  for (const command of step) {
    const added = sizeOf([command]);
    const full =
      size.records + added.records > COMMIT_RECORDS_MAX ||
      size.bytes + added.bytes > COMMIT_BYTES_MAX;
    if (full && part.length > 0) {
      parts.push(part);
      part = [];
      size = { records: 0, bytes: 0 };
    }
    part.push(command);
    size = { records: size.records + added.records, bytes: size.bytes + added.bytes };
  }
  parts.push(part);
  return parts;
}
