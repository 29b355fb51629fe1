import { parseArgs } from "node:util";

/** Tasks at a time, of the worker and of every shell contestant. */
export const SLOTS = 2;
/** The one interpreter of all contestants: shims and other builds differ by a half. */
export const PYTHON = "/usr/bin/python3";

export const USAGE = `node test/bench/main.ts [options]
  --quick             small data, about 3 minutes; the targets are for the full sizes
  --only NAME,NAME    only these cases; a beginning of a name will do
  --rounds N          rounds of every case (default: 3 with large data, 5 else)
  --scale FACTOR      all sizes of the data times so much
  --cpus LIST         the processors to run on, as for taskset; default: the first two
  --keep-data FOLDER  the data is made there, kept, and found again
  --json FILE         all raw figures; those of storage and control-plane in FILE.storage and FILE.control-plane
  --list              names the cases
  --help
`;

/** How much data there is; bytes unless the name says otherwise. */
export interface Sizes {
  smallText: number;
  largeText: number;
  records: number;
  /** A count. */
  distinctKeys: number;
  hotKey: number;
  /** A count. */
  smallFiles: number;
  smallFile: number;
  /** Map tasks of the job with many. */
  manyMaps: number;
  smallRounds: number;
  largeRounds: number;
  latencyRounds: number;
  /** Rounds of a case that are repeated because of a disturbance, in all. */
  repeats: number;
}

export interface Settings {
  quick: boolean;
  only: string[];
  cpus: string | undefined;
  keepData: string | undefined;
  json: string | undefined;
  list: boolean;
  help: boolean;
  sizes: Sizes;
}

const MB = 1_000_000;

const FULL: Sizes = {
  smallText: 100 * MB,
  largeText: 1_000 * MB,
  records: 1_000 * MB,
  distinctKeys: 10_000_000,
  hotKey: 100 * MB,
  smallFiles: 10_000,
  smallFile: 1_000,
  manyMaps: 1_000,
  smallRounds: 5,
  largeRounds: 3,
  latencyRounds: 100,
  repeats: 3,
};

const QUICK: Sizes = {
  smallText: 5 * MB,
  largeText: 12 * MB,
  records: 50 * MB,
  distinctKeys: 1_000_000,
  hotKey: 10 * MB,
  smallFiles: 1_000,
  smallFile: 1_000,
  manyMaps: 64,
  smallRounds: 3,
  largeRounds: 3,
  latencyRounds: 20,
  repeats: 1,
};

export function parseSettings(argv: string[]): Settings {
  const { values } = parseArgs({
    args: argv,
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      rounds: { type: "string" },
      scale: { type: "string", default: "1" },
      cpus: { type: "string" },
      "keep-data": { type: "string" },
      json: { type: "string" },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const rounds = values.rounds === undefined ? undefined : positive("--rounds", values.rounds);
  return {
    quick: values.quick,
    only: values.only.split(",").filter((name) => name !== ""),
    cpus: values.cpus,
    keepData: values["keep-data"],
    json: values.json,
    list: values.list,
    help: values.help,
    sizes: scaled(values.quick ? QUICK : FULL, positive("--scale", values.scale), rounds),
  };
}

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`${flag} ${text}: a number above 0 is wanted`);
  return value;
}

function scaled(sizes: Sizes, factor: number, rounds: number | undefined): Sizes {
  const times = (size: number) => Math.max(1, Math.round(size * factor));
  return {
    ...sizes,
    smallText: times(sizes.smallText),
    largeText: times(sizes.largeText),
    records: times(sizes.records),
    distinctKeys: times(sizes.distinctKeys),
    hotKey: times(sizes.hotKey),
    smallFiles: times(sizes.smallFiles),
    smallRounds: rounds ?? sizes.smallRounds,
    largeRounds: rounds ?? sizes.largeRounds,
    latencyRounds: rounds ?? sizes.latencyRounds,
  };
}

/** A size as names and headings have it: 25 MB, 1 GB. */
export function sizeName(bytes: number): string {
  const [value, unit] =
    bytes >= 1_000 * MB
      ? [bytes / MB / 1_000, "GB"]
      : bytes >= MB
        ? [bytes / MB, "MB"]
        : [bytes / 1_000, "KB"];
  return `${Number(value.toPrecision(3))} ${unit}`;
}
