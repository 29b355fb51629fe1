import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { outputOf, putText, runJob, useCluster } from "../support/cluster.ts";
import { sortedLines } from "../support/oracle.ts";
import { until } from "../support/processes.ts";

const MAPS = 40;
/** The mapper of one file ends when it is told to. */
const MAPPER = `import os, sys, time
for line in sys.stdin:
    while line.startswith("wait") and not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
    print(line.strip(), 1, sep="\\t")
`;

describe("reduce tasks", () => {
  it("fetch and merge map outputs while the last map runs", async () => {
    await using cluster = await useCluster({ workers: 1, slots: 2 });
    const { client, dir } = cluster;
    await putText(client, "dfs-scripts", "mapper.py", MAPPER);
    const expected = new Map<string, number>();
    for (let file = 0; file < MAPS; file += 1) {
      const words = Array.from({ length: 300 }, (_, i) => `word-${(i * file) % 97}`);
      if (file === 0) words.unshift("wait");
      for (const word of words) expected.set(word, (expected.get(word) ?? 0) + 1);
      await putText(client, "text", `file-${file + 100}`, `${words.join("\n")}\n`);
    }
    const go = join(dir, "go");
    const running = runJob(client, {
      mapper: "mapper.py",
      reducer: "sum",
      data: "text",
      m_num: MAPS,
      r_num: 3,
      env: { GO: go },
    });
    const early = () =>
      readdirSync(join(dir, "scratch")).flatMap((worker) => {
        const spill = join(dir, "scratch", worker, "own", "spill");
        return existsSync(spill) ? readdirSync(spill).filter((it) => it.startsWith("early-")) : [];
      });
    await until("a reduce task that begins", () => early().length > 0);
    writeFileSync(go, "");
    const job = await running;
    assert.equal(job.state, "succeeded", job.error?.message);
    assert.ok(
      (job.counters["mr,map outputs merged early"] ?? 0) >= 8,
      JSON.stringify(job.counters),
    );
    const lines = [...expected].map(([word, count]) => `${word}\t${count}`);
    const output = sortedLines(await outputOf(client, job.id)).toString();
    assert.equal(output, sortedLines(Buffer.from(`${lines.join("\n")}\n`)).toString());
    await until("clean scratch", () => early().length === 0);
  });
});
