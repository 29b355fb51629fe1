import { setImmediate as turn } from "node:timers/promises";

/** Work that goes on for longer lets others have their turn, in milliseconds. */
const HELD_MS = 10;

/** Long work in small pieces: the leader has leases to keep and questions to answer meanwhile. */
export class Turns {
  private sinceMs = performance.now();

  /** Between two pieces. */
  async next(): Promise<void> {
    if (performance.now() - this.sinceMs < HELD_MS) return;
    await turn();
    this.sinceMs = performance.now();
  }
}

const SORTED_AT_ONCE = 2_048;

/** As `toSorted`, in turns. */
export async function sortedInTurns<T>(items: T[], compare: (a: T, b: T) => number): Promise<T[]> {
  const turns = new Turns();
  let runs: T[][] = [];
  for (let from = 0; from < items.length; from += SORTED_AT_ONCE) {
    runs.push(items.slice(from, from + SORTED_AT_ONCE).sort(compare));
    await turns.next();
  }
  while (runs.length > 1) {
    const merged: T[][] = [];
    for (let i = 0; i < runs.length; i += 2)
      merged.push(await mergedInTurns(runs[i] as T[], runs[i + 1] ?? [], compare, turns));
    runs = merged;
  }
  return runs[0] ?? [];
}

async function mergedInTurns<T>(
  a: T[],
  b: T[],
  compare: (a: T, b: T) => number,
  turns: Turns,
): Promise<T[]> {
  const all: T[] = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    if (compare(a[i] as T, b[j] as T) <= 0) all.push(a[i++] as T);
    else all.push(b[j++] as T);
    if (all.length % SORTED_AT_ONCE === 0) await turns.next();
  }
  for (; i < a.length; i += 1) all.push(a[i] as T);
  for (; j < b.length; j += 1) all.push(b[j] as T);
  return all;
}
