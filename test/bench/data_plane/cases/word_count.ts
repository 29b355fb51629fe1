import type { BenchCase, Contestant, Site, Target } from "../bench_case.ts";
import { sizeName } from "../settings.ts";
import { mergeAndReduce, partitioned, python, quoted, sortPieces, twoAtATime } from "../shell.ts";
import {
  floorOf,
  isInstalled,
  mapOnly,
  program,
  REDUCERS,
  textFor,
  WORD_COUNT,
} from "./word_count_common.ts";

/** The canonical scripts over Zipf text, against everything that runs the same scripts. */

const OWN_CPU_MAX = 0.12;
const WORKER_PEAK_MAX_MB = 400;

async function prepare(site: Site, bytes: number, rounds: number, targets: Target[]) {
  const text = await textFor(site, bytes);
  const { files, expected } = text;
  const mapper = python(site.scripts.mapper);
  const reducer = python(site.scripts.reducer);
  const bestShell = [
    twoAtATime(files, `${mapper} < "$1" | ${partitioned(REDUCERS)}; ${sortPieces(REDUCERS)}`),
    mergeAndReduce(REDUCERS, reducer),
  ].join("\n");
  const sort = "LC_ALL=C sort -S4G --parallel=2";
  const asWritten = `cat ${quoted(files)} | ${mapper} | ${sort} | ${reducer} > part-0`;
  const contestants: Contestant[] = [
    {
      kind: "shell",
      name: "floor",
      script: floorOf(mapOnly(files, mapper), await text.ready(), reducer),
      expected,
    },
    { kind: "job", name: "mr", request: WORD_COUNT, expected },
    { kind: "shell", name: "best shell", script: bestShell, expected },
    {
      kind: "shell",
      name: "cat | mapper | sort | reducer",
      script: asWritten,
      expected,
      once: true,
    },
  ];
  const hasMrjob = isInstalled("mrjob");
  if (hasMrjob) {
    const script = mrjobScript(files, mapper, reducer);
    contestants.push({ kind: "shell", name: "mrjob -r local", script, expected, once: true });
  }
  return {
    title: `word count of ${sizeName(bytes)}, ${files.length} files, R = ${REDUCERS}`,
    inputs: { text: files },
    contestants,
    yardsticks: ["floor", "best shell"],
    targets: [
      ...targets,
      { kind: "ownCpu" as const, of: "mr", max: OWN_CPU_MAX },
      { kind: "workerPeakMb" as const, of: "mr", max: WORKER_PEAK_MAX_MB },
    ],
    rounds,
    notes: hasMrjob ? [] : ["mrjob is not installed"],
  };
}

/** The parts that it writes are sorted by key, each. */
function mrjobScript(files: string[], mapper: string, reducer: string): string {
  const run = `${program("mrjob_word_count.py")} -r local --no-conf --quiet --output-dir "$PWD/out"`;
  const env = `MAPPER=${quoted([mapper])} REDUCER=${quoted([reducer])}`;
  return `${env} ${run} ${quoted(files)} > /dev/null; cat out/part-* | LC_ALL=C sort > part-0`;
}

export const wordCountSmall: BenchCase = {
  name: "word-count-small",
  prepare: (site) =>
    prepare(site, site.sizes.smallText, site.sizes.smallRounds, [
      { kind: "wall", of: "mr", to: "floor", max: 1.25 },
    ]),
};

export const wordCountLarge: BenchCase = {
  name: "word-count-large",
  prepare: (site) =>
    prepare(site, site.sizes.largeText, site.sizes.largeRounds, [
      { kind: "wall", of: "mr", to: "floor", max: 1.15 },
      { kind: "wall", of: "mr", to: "best shell", max: 0.6 },
    ]),
};
