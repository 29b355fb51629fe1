import { basename } from "node:path";
import type { BenchCase, Contestant } from "../bench_case.ts";
import { sizeName } from "../settings.ts";
import {
  combinedAndPartitioned,
  mergeAndReduce,
  python,
  quoted,
  SUM_SORTED,
  sortPieces,
  twoAtATime,
} from "../shell.ts";
import { isInstalled, program, REDUCERS, textFor, WORD_COUNT } from "./word_count_common.ts";

/** Word counts in which not every pair goes through a reducer script. */

export const sum: BenchCase = {
  name: "sum",
  prepare: async (site) => {
    const { largeText: bytes, largeRounds: rounds } = site.sizes;
    const { files, expected } = await textFor(site, bytes);
    const map = `${python(site.scripts.mapper)} < "$1" | ${combinedAndPartitioned(REDUCERS)}`;
    const shell = [
      twoAtATime(files, `${map}; ${sortPieces(REDUCERS)}`),
      mergeAndReduce(REDUCERS, SUM_SORTED),
    ].join("\n");
    const request = { ...WORD_COUNT, combiner: "sum", reducer: "sum" };
    const contestants: Contestant[] = [
      { kind: "job", name: "mr", request, expected },
      { kind: "shell", name: "shell with awk", script: shell, expected },
    ];
    const hasDask = isInstalled("dask.bag");
    const script = `${program("dask_word_count.py")} ${quoted(files)} > part-0`;
    if (hasDask) contestants.push({ kind: "shell", name: "Dask bag", script, expected });
    return {
      title: `word count of ${sizeName(bytes)} with the built-in sum as combiner and reducer`,
      inputs: { text: files },
      contestants,
      yardsticks: ["shell with awk", ...(hasDask ? ["Dask bag"] : [])],
      targets: [
        { kind: "wall", of: "mr", to: "shell with awk", max: 0.6 },
        { kind: "wall", of: "mr", to: "Dask bag", max: 1 },
      ],
      rounds,
      notes: hasDask ? [] : ["dask is not installed"],
    };
  },
};

export const moduleMapper: BenchCase = {
  name: "module",
  prepare: async (site) => {
    const { smallText: bytes, smallRounds: rounds } = site.sizes;
    const { files, expected } = await textFor(site, bytes);
    const module = { ...WORD_COUNT, mapper: basename(site.scripts.module) };
    return {
      title: `word count of ${sizeName(bytes)}: the mapper in Python, and as a module in the worker`,
      inputs: { text: files },
      contestants: [
        { kind: "job", name: "Python mapper", request: WORD_COUNT, expected },
        { kind: "job", name: "JavaScript module", request: module, expected },
      ],
      yardsticks: ["Python mapper"],
      targets: [],
      rounds,
    };
  },
};
