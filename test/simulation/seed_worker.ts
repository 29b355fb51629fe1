/** A thread of the pool: runs the ranges of seeds that it is given. */
import { parentPort } from "node:worker_threads";
import { SimulatedCluster } from "./cluster.ts";
import { nothingSeen, SEEN, type Seen } from "./history.ts";

export interface Range {
  first: number;
  count: number;
}

export interface RangeResult {
  seen: Seen;
  /** What went wrong, with its seed and its log. */
  failures: string[];
}

parentPort?.on("message", ({ first, count }: Range) => {
  const result: RangeResult = { seen: nothingSeen(), failures: [] };
  for (let seed = first; seed < first + count; seed += 1) {
    try {
      const cluster = new SimulatedCluster(seed);
      cluster.run();
      for (const what of SEEN) result.seen[what] += cluster.history.seen[what];
    } catch (error) {
      result.failures.push((error as Error).stack ?? String(error));
    }
  }
  parentPort?.postMessage(result);
});
