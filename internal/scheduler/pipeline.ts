/**
 * A job of several steps. Each step is a job of its own, JOB.1, JOB.2, ..., that reads
 * the parts of the one before from dfs-intermediate; only the last one's output is the
 * result. All of a step follows from its pipeline's record, so that a later leader makes
 * the very same one.
 *
 * A pipeline is `queued`, then in `steps` (one of its steps is not ended), then `ended`.
 * What a step has made is kept until its pipeline succeeds or expires: a failed one can
 * be resumed from there.
 */
import { canonical } from "../model/canonical.ts";
import { MrError } from "../model/errors.ts";
import { stepId } from "../model/ids.ts";
import type { JobSpec } from "../model/job_request.ts";
import { type JobRecord, key, type ResumeRecord } from "../model/records.ts";
import type { Command, Event } from "./events.ts";
import { endJob } from "./job_end.ts";
import { put } from "./record_writes.ts";
import { type Job, newJob, outputOf, type State, stateOf } from "./state.ts";
import { isPipeline, stepsOf } from "./steps.ts";

type At = Pick<Event, "atMs" | "wallMs">;

/** Its first step; after a takeover or a step's end, the next one, or the end. */
export function continuePipeline(state: State, pipeline: Job, at: At, out: Command[]): void {
  const { record } = pipeline;
  const last = stepsOf(state, pipeline).at(-1);
  const first = record.resume?.step ?? 0;
  if (last === undefined) return beginStep(state, pipeline, first, out);
  const step = last.record.pipeline?.step ?? 0;
  pipeline.stage = { kind: "steps", current: last.record.id };
  if (last.stage.kind !== "ended") return;
  if (stateOf(last) === "succeeded" && step + 1 < record.spec.steps.length)
    return beginStep(state, pipeline, step + 1, out);
  const { state: end, error } = last.stage.report;
  const named = error && { ...error, message: `step ${step + 1}: ${error.message}` };
  endJob(state, pipeline, { state: end, ...(named && { error: named }) }, at, out);
}

function beginStep(state: State, pipeline: Job, step: number, out: Command[]): void {
  const { record } = pipeline;
  const id = stepId(record.id, step);
  const child: JobRecord = {
    id,
    spec: specOf(state, pipeline, step),
    submittedAtMs: record.submittedAtMs,
    order: record.order,
    idempotencyKey: "",
    owner: record.owner,
    scripts: record.scripts,
    pipeline: { id: record.id, step, output: outputOf(record) },
  };
  state.jobs.set(id, newJob(child));
  state.vacancy = true;
  pipeline.stage = { kind: "steps", current: id };
  out.push(put(key.spec(id), child));
  out.push({ kind: "changed", job: record.id });
}

function specOf(state: State, pipeline: Job, step: number): JobSpec {
  const { id, spec, resume } = pipeline.record;
  const isLast = step + 1 === spec.steps.length;
  const before = state.jobs.get(stepId(id, step - 1));
  const isFirst = step === (resume?.step ?? 0);
  const data = isFirst || before === undefined ? (resume?.data ?? spec.data) : partsOf(before);
  return {
    ...spec,
    ...(spec.steps[step] as JobSpec["steps"][number]),
    steps: [],
    from: "",
    data,
    output: isLast ? outputOf(pipeline.record) : `dfs-intermediate/${stepId(id, step)}`,
  };
}

/** Without what was set aside beside them. */
function partsOf(step: Job): string[] {
  return [`${outputOf(step.record)}/part-`];
}

/** Steps that have ended since the last look; their pipelines go on. */
export function continuePipelines(state: State, at: At, out: Command[]): void {
  for (let id = state.endedSteps.shift(); id !== undefined; id = state.endedSteps.shift()) {
    const pipeline = state.jobs.get(state.jobs.get(id)?.record.pipeline?.id ?? "");
    if (pipeline?.stage.kind === "steps" && pipeline.stage.current === id)
      continuePipeline(state, pipeline, at, out);
  }
}

/** Where a pipeline that goes on from a failed one begins, and what it reads there. */
export function resumePoint(state: State, spec: JobSpec): ResumeRecord | MrError {
  const refuse = (field: string, message: string) =>
    new MrError("invalid", `${field}: ${message}`, { violations: [{ field, message }] });
  const before = state.jobs.get(spec.from);
  const end = before === undefined ? undefined : stateOf(before);
  if (before === undefined || !isPipeline(before) || (end !== "failed" && end !== "cancelled"))
    return refuse("from", "not the id of a job with steps that has failed or was cancelled");
  const last = stepsOf(state, before).at(-1)?.record;
  const point =
    last === undefined
      ? (before.record.resume ?? { step: 0, data: spec.data })
      : { step: last.pipeline?.step ?? 0, data: last.spec.data };
  if (point.step >= spec.steps.length) return refuse("steps", `step ${point.step + 1} is missing`);
  for (let step = 0; step < point.step; step += 1)
    if (canonical(spec.steps[step]) !== canonical(before.record.spec.steps[step]))
      return refuse(
        `steps.${step}`,
        `differs from that of ${spec.from}, whose result would be used`,
      );
  return point.step === 0 ? { step: 0, data: spec.data } : point;
}
