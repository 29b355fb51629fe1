import { stepId } from "../model/ids.ts";
import { type Job, type State, stateOf } from "./state.ts";

export function isPipeline({ record }: Job): boolean {
  return record.spec.steps.length > 0;
}

/** The steps that were begun, in order. */
export function stepsOf(state: State, pipeline: Job): Job[] {
  const { id, spec } = pipeline.record;
  return spec.steps.flatMap((_, index) => state.jobs.get(stepId(id, index)) ?? []);
}

/** What a step has made is read by the next one, or by a job that goes on from there. */
export function isKeptStep(state: State, { record }: Job): boolean {
  if (record.pipeline === undefined) return false;
  const pipeline = state.jobs.get(record.pipeline.id);
  return pipeline !== undefined && stateOf(pipeline) !== "succeeded";
}

/** Of a pipeline, its steps too. */
export function withSteps(state: State, job: Job): Job[] {
  return [job, ...stepsOf(state, job)];
}
