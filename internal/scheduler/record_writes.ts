import { COMMIT_RECORDS_MAX, type RecordWrite } from "../model/coordinator.ts";
import type { Command } from "./events.ts";

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
