import type { BenchCase } from "../bench_case.ts";
import { expectParts } from "../expected.ts";
import { distinctKeys, hotKey, type KeyData } from "../key_data.ts";
import { sizeName } from "../settings.ts";
import { python } from "../shell.ts";
import { FILES, floorOf, mapOnly, REDUCERS, WORD_COUNT } from "./word_count_common.ts";

/** Keys as unlike a text's as can be, through `cat` and the canonical reducer. */

const OF_FLOOR_MAX = 1.3;

async function prepare(title: string, keys: KeyData, reducer: string, rounds: number) {
  const expected = await expectParts("sorted", [keys.expected]);
  const script = floorOf(mapOnly(keys.files, "cat"), keys.ready, python(reducer));
  return {
    title: `${title}, R = ${REDUCERS}`,
    inputs: { keys: keys.files },
    contestants: [
      { kind: "shell" as const, name: "floor", script, expected },
      {
        kind: "job" as const,
        name: "mr",
        request: { ...WORD_COUNT, mapper: "cat", data: "keys" },
        expected,
      },
    ],
    yardsticks: ["floor"],
    targets: [{ kind: "wall" as const, of: "mr", to: "floor", max: OF_FLOOR_MAX }],
    rounds,
  };
}

export const distinct: BenchCase = {
  name: "distinct-keys",
  prepare: async ({ data, scripts, sizes: { distinctKeys: count, smallRounds } }) => {
    const keys = await distinctKeys(data, { count, files: FILES, reducers: REDUCERS });
    return prepare(`${count} distinct keys`, keys, scripts.reducer, smallRounds);
  },
};

function hot(values: "same" | "distinct"): BenchCase {
  return {
    name: `hot-key-${values}`,
    prepare: async ({ data, scripts, sizes: { hotKey: bytes, smallRounds } }) => {
      const keys = await hotKey(data, { bytes, files: FILES, reducers: REDUCERS, values });
      const title = `one key, ${sizeName(bytes)} of ${values} values`;
      return prepare(title, keys, scripts.reducer, smallRounds);
    },
  };
}

export const hotKeySame = hot("same");
export const hotKeyDistinct = hot("distinct");
