import { setImmediate as turn } from "node:timers/promises";

/** So many names are sorted, or merged, at once: a few milliseconds' work. */
const AT_ONCE = 4_096;

/**
 * Names in the order of their bytes, in turns: there may be hundreds of thousands, and whoever
 * lists them has others to answer meanwhile.
 */
export async function sortedNames(names: AsyncIterable<string>): Promise<string[]> {
  let runs: string[][] = [];
  let run: string[] = [];
  let isPlain = true;
  for await (const name of names) {
    isPlain &&= !SURROGATE.test(name);
    if (run.push(name) < AT_ONCE) continue;
    runs.push(run.sort());
    run = [];
  }
  runs.push(run.sort());
  if (!isPlain) for (const each of runs) each.sort(byBytes);
  while (runs.length > 1) {
    const merged: string[][] = [];
    for (let i = 0; i < runs.length; i += 2)
      merged.push(await mergedInTurns(runs[i] ?? [], runs[i + 1] ?? [], isPlain));
    runs = merged;
  }
  return runs[0] ?? [];
}

async function mergedInTurns(a: string[], b: string[], isPlain: boolean): Promise<string[]> {
  const all: string[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const [one, other] = [a[i], b[j]];
    const takesOne =
      other === undefined ||
      (one !== undefined && (isPlain ? one < other : byBytes(one, other) < 0));
    if (takesOne) i += 1;
    else j += 1;
    all.push((takesOne ? one : other) as string);
    if (all.length % AT_ONCE === 0) await turn();
  }
  return all;
}

/** Only where these are do the units of a text have another order than its bytes. */
const SURROGATE = /[\ud800-\udfff]/;

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
