import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { ContractCase } from "./case.ts";
import { BUILTINS } from "./cases/builtins.ts";
import { DEPENDENCIES } from "./cases/dependencies.ts";
import { JOBS } from "./cases/jobs.ts";
import { PRINTING } from "./cases/printing.ts";
import { READING } from "./cases/reading.ts";
import { RUNNING } from "./cases/running.ts";
import { SHUFFLING } from "./cases/shuffling.ts";
import { clusterRunner, localRunner, type Outcome, type Runner } from "./runners.ts";

const CASES = [
  ...READING,
  ...RUNNING,
  ...DEPENDENCIES,
  ...PRINTING,
  ...SHUFFLING,
  ...BUILTINS,
  ...JOBS,
];
const ROOT = join(import.meta.dirname, "..", "..");

describe("the contract's page", () => {
  it(`has a case for each rule, and a rule for each of ${CASES.length} cases`, () => {
    const page = readFileSync(join(ROOT, "CONTRACT.md"), "utf8");
    const rules = [...page.matchAll(/^- \*\*([A-Z]\d+)\*\*/gm)].map(([, rule]) => rule ?? "");
    assert.ok(rules.length > 40, `${rules.length} rules`);
    const named = new Set(CASES.flatMap((one) => one.rules.split(" ")));
    assert.deepEqual(
      [...named].filter((rule) => !rules.includes(rule)),
      [],
      "unknown rules",
    );
    assert.deepEqual(
      rules.filter((rule) => !named.has(rule)),
      [],
      "rules without a case",
    );
  });
});

for (const open of [clusterRunner, localRunner])
  describe(`the contract, ${open.title}`, { concurrency: 4 }, () => {
    let runner: Runner;
    before(async () => {
      runner = await open();
    });
    after(() => runner[Symbol.asyncDispose]());

    for (const one of CASES.filter(({ before: first }) => !first || open.title === "by a cluster"))
      it(`${one.rules}: ${one.title}`, async () => compare(one, await runner.run(one)));
  });

function compare(one: ContractCase, outcome: Outcome): void {
  if (one.fails !== undefined) {
    assert.match(outcome.error ?? "(it succeeded)", one.fails);
    if (one.log !== undefined) assert.match(outcome.log, one.log);
    return;
  }
  assert.equal(outcome.error, undefined, `${outcome.error}\n${outcome.log}`);
  const parts = new Map([...outcome.files].filter(([name]) => name !== "_SUCCESS"));
  assert.equal(outcome.files.get("_SUCCESS")?.length, 0, "an empty _SUCCESS");
  const shown = (bytes: Uint8Array | string) => Buffer.from(bytes).toString("latin1");
  if (one.names !== undefined) assert.deepEqual([...parts.keys()].toSorted(), one.names);
  if (one.parts !== undefined)
    assert.deepEqual([...parts.values()].map(shown), one.parts.map(shown));
  if (one.lines !== undefined) {
    const text = [...parts.values()].map(String).join("");
    assert.deepEqual(text.split("\n").slice(0, -1).toSorted(), one.lines.toSorted());
  }
  one.check?.(parts);
  if (one.counters !== undefined) assert.deepEqual(outcome.counters, one.counters);
  if (one.log !== undefined) assert.match(outcome.log, one.log);
}
