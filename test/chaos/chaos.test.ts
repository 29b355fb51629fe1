import assert from "node:assert/strict";
import { it } from "node:test";
import { FAULTS } from "./faults.ts";
import { ChaosRun } from "./rounds.ts";

it("a few rounds of chaos: no wrong output, no lost job, no second winner", async (context) => {
  const faults = Object.keys(FAULTS);
  const say = (line: string) => context.diagnostic(line);
  const result = await new ChaosRun({ seed: 1, first: 1, rounds: 5, faults, say }).run();
  assert.deepEqual(result.faults, []);
  assert.equal(result.rounds, 5);
  for (const line of result.times) context.diagnostic(line);
});
