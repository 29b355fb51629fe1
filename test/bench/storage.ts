/**
 * How near the Azure store comes to what the SDK itself gets out of the same storage, with blocks and
 * windows of the same size. Azurite is the storage, once at its own speed and once behind a link that is as
 * fast and as far as one to a cloud. Contestants take turns; what counts is the median of each round's ratio.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ServerProcess, until } from "../support/processes.ts";
import { useAzurite } from "../support/servers.ts";
import { type Measured, MIB, prepare, type Run, sweep } from "./storage_contestants.ts";

const USAGE = `node test/bench/storage.ts [--mb N] [--rounds N] [--only TEXT] [--link MB_PER_S] [--latency MS] [--json FILE]
  --mb N            size of the large object in MiB; default 256
  --rounds N        default 3
  --only TEXT       only comparisons whose name has this in it
  --link MB_PER_S   speed of one connection of the emulated link; default 60; 0: leave it out
  --latency MS      its round trip; default 20
  --json FILE       writes every measurement there, too
`;

/** Who is compared with whom, the store first. */
const COMPARISONS: [title: string, store: string, others: string[]][] = [
  ["upload", "up/store", ["up/uploadStream", "up/stageBlock"]],
  ["download", "down/store", ["down/stream", "down/toBuffer"]],
  ["download in bursts", "bursts/store", ["bursts/stream"]],
  ["ranges of 4 MiB, 8 at a time", "ranges/store", ["ranges/stream"]],
  ["create 64 KiB, 8 at a time", "create/store", ["create/upload"]],
  ["stage 64 KiB, 8 at a time", "stage/store", ["stage/stageBlock"]],
  ["read 64 KiB, 8 at a time", "read/store", ["read/toBuffer"]],
];
/** Where a link's speed and distance tell. */
const ON_LINK = ["upload", "download", "download in bursts"];

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] as number;

interface Row extends Measured {
  where: string;
  title: string;
  contestant: string;
  round: number;
}

function runOnce(run: Run): Measured {
  const script = join(import.meta.dirname, "storage_contestants.ts");
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, JSON.stringify(run)], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`${run.contestant}: ${stderr}`);
  return JSON.parse(stdout) as Measured;
}

async function compare(
  rows: Row[],
  of: { where: string; direct: string; connection: string; mb: number; rounds: number },
  [title, store, others]: (typeof COMPARISONS)[number],
): Promise<void> {
  const { where, connection, mb } = of;
  const all = [store, ...others];
  for (let round = 0; round < of.rounds; round += 1)
    for (const contestant of all) {
      const name = `${contestant}/${where}/${round}`;
      const measured = runOnce({ connection, contestant, mb, name });
      rows.push({ where, title, contestant, round, ...measured });
      await sweep(of.direct, name);
    }
  for (const contestant of all) say(line(rows, where, title, store, contestant));
}

function line(
  rows: Row[],
  where: string,
  title: string,
  store: string,
  contestant: string,
): string {
  const of = (who: string) =>
    rows.filter((row) => row.where === where && row.title === title && row.contestant === who);
  const [own, theirs] = [of(store), of(contestant)];
  const ratio = (key: "ms" | "cpuMs") =>
    median(own.map((row, i) => row[key] / (theirs[i]?.[key] ?? Number.NaN))).toFixed(2);
  const mid = (key: "ms" | "cpuMs" | "peakBytes") => median(theirs.map((row) => row[key]));
  const cells = [
    where.padEnd(8),
    title.padEnd(29),
    contestant.padEnd(17),
    `${(mid("ms") / 1_000).toFixed(2)} s`.padStart(8),
    `${(mid("cpuMs") / 1_000).toFixed(2)} s`.padStart(8),
    `${Math.round(mid("peakBytes") / MIB)} MiB`.padStart(9),
    String(theirs[0]?.requests ?? "").padStart(8),
    (contestant === store ? "" : ratio("ms")).padStart(7),
    (contestant === store ? "" : ratio("cpuMs")).padStart(7),
  ];
  return cells.join(" ");
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** An Azurite as if it were in a cloud. */
async function openLink(direct: string, mbPerSecond: number, latencyMs: number) {
  const port = /127\.0\.0\.1:(\d+)/.exec(direct)?.[1] ?? "";
  const script = join(import.meta.dirname, "storage_link.ts");
  const link = new ServerProcess(process.execPath, [
    script,
    port,
    String(mbPerSecond),
    String(latencyMs),
  ]);
  const own = await until("the link", () => /^\d+(?=\n)/.exec(link.said)?.[0]);
  return { link, connection: direct.replace(port, own) };
}

const { values } = parseArgs({
  options: {
    mb: { type: "string", default: "256" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    link: { type: "string", default: "60" },
    latency: { type: "string", default: "20" },
    json: { type: "string" },
    help: { type: "boolean" },
  },
});

async function main(): Promise<void> {
  const [mb, rounds] = [Number(values.mb), Number(values.rounds)];
  await using azurite = await useAzurite();
  const direct = azurite.connectionString;
  await prepare(direct, mb);
  const rows: Row[] = [];
  const chosen = COMPARISONS.filter(([title]) => title.includes(values.only));
  say(
    `${mb} MiB, ${rounds} rounds; a ratio is the store's time, or CPU time, over the other's\n` +
      "where    what                          who                   wall      cpu grew by requests time /  cpu /",
  );
  for (const comparison of chosen)
    await compare(rows, { where: "Azurite", direct, connection: direct, mb, rounds }, comparison);
  if (Number(values.link) > 0) {
    const { link, connection } = await openLink(
      direct,
      Number(values.link),
      Number(values.latency),
    );
    for (const comparison of chosen.filter(([title]) => ON_LINK.includes(title)))
      await compare(rows, { where: "link", direct, connection, mb, rounds }, comparison);
    await link.stop();
  }
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(rows, null, 2));
}

if (values.help) say(USAGE);
else await main();
