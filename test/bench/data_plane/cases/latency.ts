import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BenchCase } from "../bench_case.ts";
import { expectOutput } from "../expected.ts";
import { python, quoted } from "../shell.ts";
import { WORD_COUNT } from "./word_count_common.ts";

/** A job of one line on a warm cluster: all that is not work. */

const P50_MAX_MS = 150;

export const latency: BenchCase = {
  name: "latency",
  prepare: async ({ data, scripts, sizes }) => {
    const folder = await data.get("line", (into) =>
      writeFile(join(into, "part-00000"), "to be or not to be\n"),
    );
    const file = join(folder, "part-00000");
    const [mapper, reducer] = [python(scripts.mapper), python(scripts.reducer)];
    const pipeline = `cat ${quoted([file])} | ${mapper} | LC_ALL=C sort | ${reducer}`;
    const expected = await expectOutput(pipeline);
    const request = { ...WORD_COUNT, data: "line", m_num: 1, r_num: 1 };
    return {
      title: "word count of one line, on a warm cluster",
      inputs: { line: [file] },
      contestants: [
        { kind: "shell", name: "shell", script: `${pipeline} > part-0`, expected },
        { kind: "job", name: "mr", request, expected },
      ],
      yardsticks: ["shell"],
      targets: [{ kind: "medianMs", of: "mr", max: P50_MAX_MS }],
      rounds: sizes.latencyRounds,
      brief: true,
    };
  },
};
