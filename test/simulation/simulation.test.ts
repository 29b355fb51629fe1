import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SimulatedCluster } from "./cluster.ts";
import { SEEN } from "./history.ts";
import { MISTAKES, type Mutation } from "./mutations.ts";
import { runSeeds } from "./seed_pool.ts";

/** MR_SIM_SEED replays one seed; MR_SIM_SEEDS sets how many are run. */
const { MR_SIM_SEED, MR_SIM_SEEDS } = process.env;
const first = Number(MR_SIM_SEED ?? 1);
const count = MR_SIM_SEED === undefined ? Number(MR_SIM_SEEDS ?? 1_000) : 1;

/** So many seeds show everything that the simulation is to exercise. */
const ENOUGH = 1_000;
const MUTATED_SEEDS = 400;

describe("a simulated cluster with faults", () => {
  it(`keeps every invariant over ${count} seeds`, async (context) => {
    const { seen, failures } = await runSeeds({ first, count });
    assert.equal(failures.length, 0, failures.join("\n\n"));
    if (count >= ENOUGH) for (const what of SEEN) assert.ok(seen[what] > 0, `never seen: ${what}`);
    const met = SEEN.map((what) => `${seen[what]} ${what}`).join(", ");
    context.diagnostic(`${count} seeds from ${first}: ${met}`);
  });

  for (const [name, { make, caughtAs }] of Object.entries(MISTAKES))
    it(`notices that ${name}`, (context) => {
      let said = "nothing";
      for (let seed = 1; seed <= MUTATED_SEEDS; seed += 1) {
        const error = failureOf(seed, make());
        if (error === undefined) continue;
        assert.ok(error instanceof assert.AssertionError, String(error));
        said = error.message.split("\n")[0] ?? "";
        if (caughtAs.test(said)) return context.diagnostic(`seed ${seed}: ${said}`);
      }
      assert.fail(`${MUTATED_SEEDS} seeds did not notice it for the right reason; last: ${said}`);
    });
});

function failureOf(seed: number, mutation: Mutation): unknown {
  try {
    new SimulatedCluster(seed, mutation).run();
    return undefined;
  } catch (error) {
    return error;
  }
}
