import type { BenchCase } from "../bench_case.ts";
import { expectOutput, expectParts } from "../expected.ts";
import { readyWords } from "../ready_made.ts";
import { sizeName } from "../settings.ts";
import { python, quoted, twoAtATime } from "../shell.ts";
import { smallFiles } from "../zipf_text.ts";
import { FILES, floorOf, REDUCERS, textFor, WORD_COUNT } from "./word_count_common.ts";

/** Jobs whose cost lies in how the mappers are fed, or in what becomes of their output. */

const OF_FLOOR_MAX = 1.3;

export const small: BenchCase = {
  name: "small-files",
  prepare: async ({ data, scripts, sizes }) => {
    const text = await smallFiles(data, {
      files: sizes.smallFiles,
      bytes: sizes.smallFile,
      groups: FILES,
    });
    const expected = await expectParts("sorted", [text.counts]);
    const ready = await readyWords(data, text, REDUCERS);
    const maps = twoAtATime(text.groups, `cat "$1"-* | ${python(scripts.mapper)} > /dev/null`);
    const script = floorOf(maps, ready, python(scripts.reducer));
    return {
      title: `word count of ${sizes.smallFiles} files of ${sizeName(sizes.smallFile)}, ${FILES} map tasks`,
      inputs: { text: text.files },
      contestants: [
        { kind: "shell", name: "floor", script, expected },
        { kind: "job", name: "mr", request: WORD_COUNT, expected },
      ],
      yardsticks: ["floor"],
      targets: [{ kind: "wall", of: "mr", to: "floor", max: OF_FLOOR_MAX }],
      rounds: sizes.smallRounds,
    };
  },
};

export const mapOnlyJob: BenchCase = {
  name: "map-only",
  prepare: async (site) => {
    const { smallText: bytes, smallRounds: rounds } = site.sizes;
    const { files } = await textFor(site, bytes);
    const mapper = python(site.scripts.mapper);
    const expected = await expectOutput(`cat ${quoted(files)} | ${mapper}`);
    const { reducer: _, ...request } = { ...WORD_COUNT, r_num: 0 };
    return {
      title: `the word count's mapper alone, ${sizeName(bytes)}`,
      inputs: { text: files },
      contestants: [
        {
          kind: "shell",
          name: "floor",
          script: twoAtATime(files, `${mapper} < "$1" > "$name"`),
          expected,
        },
        { kind: "job", name: "mr", request, expected },
      ],
      yardsticks: ["floor"],
      targets: [],
      rounds,
    };
  },
};
