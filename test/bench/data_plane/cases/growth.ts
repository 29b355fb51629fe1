import type { BenchCase } from "../bench_case.ts";
import { sizeName } from "../settings.ts";
import { textFor, WORD_COUNT } from "./word_count_common.ts";

/** How a job's time grows with its data, and with its number of tasks. */

const MORE_THAN_TEN_TIMES = 1.1;
const MORE_MAPS_MAX = 1.25;

export const bySize: BenchCase = {
  name: "growth-size",
  prepare: async (site) => {
    const { smallText, largeText, largeRounds } = site.sizes;
    const [small, large] = [await textFor(site, smallText), await textFor(site, largeText)];
    const [smallName, largeName] = [`mr ${sizeName(smallText)}`, `mr ${sizeName(largeText)}`];
    const max = (largeText / smallText) * MORE_THAN_TEN_TIMES;
    return {
      title: `word count of ${sizeName(smallText)} and of ${sizeName(largeText)}`,
      inputs: { small: small.files, large: large.files },
      contestants: [
        {
          kind: "job",
          name: smallName,
          request: { ...WORD_COUNT, data: "small" },
          expected: small.expected,
        },
        {
          kind: "job",
          name: largeName,
          request: { ...WORD_COUNT, data: "large" },
          expected: large.expected,
        },
      ],
      yardsticks: [smallName],
      targets: [{ kind: "wall", of: largeName, to: smallName, max }],
      rounds: largeRounds,
    };
  },
};

export const byMaps: BenchCase = {
  name: "growth-maps",
  prepare: async (site) => {
    const { largeText: bytes, manyMaps, largeRounds } = site.sizes;
    const { files, expected } = await textFor(site, bytes);
    const [few, many] = [`mr ${WORD_COUNT.m_num} maps`, `mr ${manyMaps} maps`];
    return {
      title: `word count of ${sizeName(bytes)} by ${WORD_COUNT.m_num} and by ${manyMaps} map tasks`,
      inputs: { text: files },
      contestants: [
        { kind: "job", name: few, request: WORD_COUNT, expected },
        { kind: "job", name: many, request: { ...WORD_COUNT, m_num: manyMaps }, expected },
      ],
      yardsticks: [few],
      targets: [{ kind: "wall", of: many, to: few, max: MORE_MAPS_MAX }],
      rounds: largeRounds,
    };
  },
};
