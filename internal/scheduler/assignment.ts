import { combinerOf, wantsValuesInOrder } from "../model/builtins.ts";
import { contractOf } from "../model/contract.ts";
import type { AttemptId, TaskKind } from "../model/ids.ts";
import type { JobSpec } from "../model/job_request.ts";
import type { JobRecord } from "../model/records.ts";
import { locateSegment } from "../model/segment_sizes.ts";
import type { Assignment, TaskJob, TaskPlan } from "../model/task.ts";
import { badOutputOf, type Job, outputOf } from "./state.ts";

/** Not copied: made anew for each grant. */
export function planOf({ splits, sources, cuts, map, reduce }: Job): TaskPlan {
  return { splits, sources, cuts, maps: map.tasks.length, reduces: reduce.tasks.length };
}

/** The part of an assignment that is the same for all tasks of a kind. */
export function taskJobFrom(record: JobRecord, plan: TaskPlan, kind: TaskKind): TaskJob {
  const { spec } = record;
  return {
    id: record.id,
    name: spec.name,
    command: kind === "map" ? spec.mapper : spec.reducer,
    files: spec.files,
    scripts: record.scripts,
    env: spec.env,
    conf: spec.conf,
    maps: plan.maps,
    reduces: plan.reduces,
    output: outputOf(record),
    badRecordsMax: spec.max_bad_records,
    badOutput: badOutputOf(record),
    network: spec.network,
    combiner: combinerOf(spec.combiner, spec.reducer),
    partitioner: spec.partitioner,
    outputFormat: spec.output_format,
    sortValues: sortsValues(spec),
  };
}

/** What a worker is told: it follows from the job's record and its plan alone. */
export function assignmentFrom(
  job: TaskJob,
  plan: TaskPlan,
  { kind, index }: { kind: TaskKind; index: number },
  attempt: AttemptId,
  narrow = false,
): Assignment {
  const key = (at: number) => {
    const cut = plan.cuts?.[at];
    return cut === undefined ? undefined : Buffer.from(cut, "base64");
  };
  return {
    attempt,
    job,
    input:
      kind === "map"
        ? { kind, split: plan.splits[index] ?? [], narrow }
        : {
            kind,
            partition: index,
            sources: plan.sources.map(({ object, size, indexOffset, sizes }) => ({
              object,
              size,
              indexOffset,
              // Ranges of keys are not segments.
              at: plan.cuts === undefined ? locateSegment(sizes, index) : undefined,
            })),
            keys: plan.cuts && { from: key(index - 1), to: key(index) },
          },
  };
}

/** A map phase does not know yet who will read it. */
function sortsValues({ phase, combiner, reducer, partitioner, conf }: JobSpec): boolean {
  return (
    phase !== "" ||
    wantsValuesInOrder(reducer) ||
    wantsValuesInOrder(combiner) ||
    contractOf({ conf, partitioner, output_format: "" }).partitioner.kind === "range"
  );
}
