import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Assignment } from "../../internal/model/task.ts";
import { Slots } from "../../internal/worker/slots.ts";
import type { TaskResult } from "../../internal/worker/task_context.ts";
import { until } from "../support/processes.ts";

const HUNGRY = new URL("../support/hungry_slot.ts", import.meta.url);

const reduceOf = (job: string, partition: number) => {
  const task = `r-${String(partition).padStart(5, "0")}`;
  const given = { attempt: `${job}/${task}/1-${partition}`, job: { id: job } };
  return { ...given, input: { kind: "reduce", partition } } as unknown as Assignment;
};

/** How attempts end that share a thread, after one of them has taken all memory. */
async function endsOf(assignments: Assignment[]): Promise<TaskResult[]> {
  const results: TaskResult[] = [];
  const slots = new Slots({
    entry: HUNGRY,
    workerData: undefined,
    count: 1,
    heapMb: 48,
    onFinished: (_, result) => results.push(result),
    onFed: () => undefined,
  });
  try {
    for (const each of assignments) slots.run(each);
    slots.stop(assignments[0]?.attempt ?? "");
    await until("their ends", () => results.length === assignments.length);
    return results;
  } finally {
    await slots.close();
  }
}

describe("a slot that runs out of memory", () => {
  it("fails the attempts of the one job that ran there, by its own fault", async () => {
    const job = "20261128-100000-aaaaaa";
    for (const result of await endsOf([reduceOf(job, 0), reduceOf(job, 1)])) {
      assert.equal(result.kind === "failed" && result.class, "user");
      assert.match(result.kind === "failed" ? result.message : "", /memory/);
    }
  });

  it("blames no job where there were several", async () => {
    const jobs = ["20261128-100000-aaaaaa", "20261128-100000-bbbbbb"];
    for (const result of await endsOf(jobs.map((job) => reduceOf(job, 0))))
      assert.equal(result.kind === "failed" && result.class, "infra");
  });
});
