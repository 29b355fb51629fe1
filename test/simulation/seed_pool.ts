import { once } from "node:events";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { nothingSeen, SEEN } from "./history.ts";
import type { Range, RangeResult } from "./seed_worker.ts";

/** Small enough that no thread is left with much when the others are done. */
const RANGE = 50;
/** More of them say nothing new. */
const FAILURES_MAX = 3;

/** Runs the seeds on every core. */
export async function runSeeds({ first, count }: Range): Promise<RangeResult> {
  const all: RangeResult = { seen: nothingSeen(), failures: [] };
  const end = first + count;
  let next = first;
  const lane = async () => {
    const thread = new Worker(new URL("./seed_worker.ts", import.meta.url));
    while (next < end && all.failures.length < FAILURES_MAX) {
      const range: Range = { first: next, count: Math.min(RANGE, end - next) };
      next += range.count;
      const answered = once(thread, "message");
      thread.postMessage(range);
      try {
        const [result] = (await answered) as [RangeResult];
        for (const what of SEEN) all.seen[what] += result.seen[what];
        all.failures.push(...result.failures);
      } catch (error) {
        all.failures.push(`a thread died in ${range.count} seeds from ${range.first}: ${error}`);
        return;
      }
    }
    await thread.terminate();
  };
  const lanes = Math.min(availableParallelism(), Math.ceil(count / RANGE));
  await Promise.all(Array.from({ length: lanes }, lane));
  return all;
}
