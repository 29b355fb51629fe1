import { COMMIT_RECORDS_MAX, type RecordWrite } from "../model/coordinator.ts";
import type { Split } from "../model/task.ts";
import type { Command } from "./events.ts";

/**
 * Ranges in one stored record. A name has at most 1,024 characters of 3 bytes:
 * even then a record is far below what a transaction may hold.
 */
export const RANGES_PER_RECORD = 150;

/** In how many records a split is kept. */
export function chunksOf(split: Split): number {
  return Math.max(1, Math.ceil(split.length / RANGES_PER_RECORD));
}

export function deleteKeys(keys: string[], out: Command[]): void {
  for (let from = 0; from < keys.length; from += COMMIT_RECORDS_MAX) {
    const writes: RecordWrite[] = keys
      .slice(from, from + COMMIT_RECORDS_MAX)
      .map((name) => ({ key: name, value: undefined }));
    out.push({ kind: "put", writes });
  }
}

export function put(name: string, value: object): Command {
  return { kind: "put", writes: [{ key: name, value: JSON.stringify(value) }] };
}
