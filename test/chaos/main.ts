/** `npm run chaos`: see --help. */
import { parseArgs } from "node:util";
import { FAULTS } from "./faults.ts";
import { ChaosRun } from "./rounds.ts";

const HELP = `npm run chaos -- [--seed S] [--rounds N] [--round K] [--scenario all|FAULT[,FAULT...]]

Runs jobs with known answers on a real cluster (3 masters, 4 workers, proxy, etcd, Azurite) in which
something goes wrong in every round, and holds outputs and history against what must be.

  --seed S       chooses jobs, faults and moments (default: the time)
  --rounds N     how many (default 20)
  --round K      the first one's number; with --rounds 1: that round again, as far as real processes allow
  --scenario     faults to choose from: ${Object.keys(FAULTS).join(", ")}
`;

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    rounds: { type: "string", default: "20" },
    round: { type: "string", default: "1" },
    scenario: { type: "string", default: "all" },
    help: { type: "boolean", default: false },
  },
});
const print = (line: string) => process.stdout.write(`${line}\n`);
const faults = values.scenario === "all" ? Object.keys(FAULTS) : values.scenario.split(",");
const unknown = faults.filter((name) => !(name in FAULTS));
const numbers = [values.seed, values.rounds, values.round].map(Number);
if (values.help || unknown.length > 0 || numbers.some((number) => !Number.isInteger(number))) {
  if (unknown.length > 0) print(`no such fault: ${unknown.join(", ")}\n`);
  print(HELP);
  process.exit(values.help ? 0 : 2);
}

const stop = new AbortController();
process.once("SIGINT", () => {
  print("ending after this round; once more: at once");
  stop.abort();
  process.once("SIGINT", () => process.exit(130));
});
const [seed = 0, rounds = 0, first = 0] = numbers;
print(`seed ${seed}`);
const run = new ChaosRun({ seed, first, rounds, faults, say: print, signal: stop.signal });
const result = await run.run();
print(`\n${result.times.join("\n")}`);
for (const fault of result.faults) print(`WRONG ${fault}`);
const kinds: [what: string, mark: RegExp][] = [
  ["wrong outputs", /wrong output|two runs were mixed|came twice|missing or too many/],
  ["lost jobs", /the end of|H3/],
  ["double winners", /H1/],
  ["finished tasks run again", /H5/],
  ["attempts lost by a planned hand-over", /hand-over lost/],
  ["orphans", /orphan/],
];
for (const [what, mark] of kinds)
  print(`${result.faults.filter((fault) => mark.test(fault)).length} ${what}`);
print(
  `\n${result.rounds} rounds, ${result.jobs} jobs, ${result.faults.length} wrong (seed ${seed})`,
);
process.exit(result.faults.length === 0 ? 0 : 1);
