import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Mutation, SimulatedCluster } from "./cluster.ts";

/** MR_SIM_SEED replays one seed; MR_SIM_SEEDS sets how many are run. */
const first = Number(process.env.MR_SIM_SEED ?? 1);
const count = process.env.MR_SIM_SEED === undefined ? Number(process.env.MR_SIM_SEEDS ?? 1_000) : 1;

describe("a simulated cluster with faults", () => {
  it(`keeps every invariant over ${count} seeds`, (context) => {
    let jobs = 0;
    for (let seed = first; seed < first + count; seed += 1) {
      const cluster = new SimulatedCluster(seed);
      cluster.run();
      jobs += cluster.history.accepted.size;
    }
    assert.ok(jobs >= count, "the simulation ran no jobs");
    context.diagnostic(`${count} seeds from ${first}, ${jobs} jobs`);
  });

  for (const mutation of ["no-fence", "acknowledge-before-commit"] satisfies Mutation[])
    it(`notices the mistake ${mutation}`, () => {
      const caught = Array.from({ length: 300 }, (_, i) => i + 1).some((seed) => {
        try {
          new SimulatedCluster(seed, mutation).run();
          return false;
        } catch (error) {
          assert.ok(error instanceof assert.AssertionError, String(error));
          return true;
        }
      });
      assert.ok(caught, `300 seeds with ${mutation} went unnoticed`);
    });
});
