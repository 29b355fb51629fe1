import type { BenchCase } from "../bench_case.ts";
import { expectParts, sortedMd5 } from "../expected.ts";
import { sortRecords } from "../key_data.ts";
import { sizeName } from "../settings.ts";
import { numbered, quoted, twoAtATime } from "../shell.ts";

/** Records of 100 bytes, sorted: everything that is not the scripts. */

const FILES = 16;
const REDUCERS = 8;

export const sort: BenchCase = {
  name: "sort",
  prepare: async ({ sizes, data }) => {
    const files = await sortRecords(data, sizes.records, FILES);
    const sorted = await sortedMd5(files);
    const job = (script: string, more: object = {}) => ({
      mapper: script,
      reducer: script,
      data: "records",
      m_num: FILES,
      r_num: REDUCERS,
      ...more,
    });
    const expected = { order: "sorted" as const, md5: sorted };
    const inOrder = { order: "concatenated" as const, md5: sorted };
    const one = 'LC_ALL=C sort --parallel=1 -S 512M "$1" -o "sorted.$name"';
    const bestShell = `${twoAtATime(files, one)}\nLC_ALL=C sort -m -- sorted.* > part-0`;
    const asWritten = `cat ${quoted(files)} | LC_ALL=C sort -S4G --parallel=2 | cat > part-0`;
    return {
      title: `sort of ${sizeName(sizes.records)} of records of 100 bytes, R = ${REDUCERS}`,
      inputs: { records: files },
      contestants: [
        {
          kind: "shell",
          name: "pipes",
          script: pipesScript(files),
          expected: await expectParts("concatenated", files),
        },
        { kind: "job", name: "mr cat", request: job("cat"), expected },
        { kind: "job", name: "mr identity", request: job("identity"), expected },
        {
          kind: "job",
          name: "mr range",
          request: job("cat", { partitioner: "range" }),
          expected: inOrder,
        },
        { kind: "shell", name: "best shell sort", script: bestShell, expected },
        { kind: "shell", name: "cat | sort | cat", script: asWritten, expected },
      ],
      yardsticks: ["pipes", "best shell sort", "mr cat"],
      targets: [
        { kind: "wall", of: "mr cat", to: "pipes", max: 4 },
        { kind: "wall", of: "mr cat", to: "best shell sort", max: 0.45 },
        { kind: "wall", of: "mr identity", to: "mr cat", max: 1 },
      ],
      rounds: sizes.largeRounds,
    };
  },
};

/** Every byte through two pipes and two files, with nothing done to it. */
function pipesScript(files: string[]): string {
  const perPart = files.length / REDUCERS;
  const group = `$((10#\${name#part-} / ${perPart}))`;
  const map = twoAtATime(files, `cat "$1" | cat > "temporary.${group}.$name"`);
  const reduce = twoAtATime(numbered(REDUCERS), "cat temporary.$1.* | cat > part-$1");
  return `${map}\n${reduce}`;
}
