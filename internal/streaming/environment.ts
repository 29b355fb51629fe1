import { parseAttemptId } from "../model/ids.ts";
import type { Assignment, InputRange } from "../model/task.ts";
import { SCRIPT_PATH } from "./command.ts";

/**
 * The whole environment of a script: Hadoop's names, the job's own, and nothing
 * of the worker's, which could carry a secret.
 * @param range what a mapper reads; where that is several files, the first.
 */
export function scriptEnvironment(
  assignment: Assignment,
  range: InputRange | undefined,
  folders: { work: string; temp: string },
): Record<string, string> {
  const { job, input } = assignment;
  const name = parseAttemptId(assignment.attempt);
  const isMap = input.kind === "map";
  const hadoop: Record<string, string> = {
    mapreduce_job_id: job.id,
    mapreduce_job_name: job.name,
    mapreduce_job_maps: String(job.maps),
    mapreduce_job_reduces: String(job.reduces),
    mapreduce_task_id: `${job.id}/${name?.task}`,
    mapreduce_task_attempt_id: assignment.attempt,
    mapreduce_task_partition: String(name?.index ?? 0),
    mapreduce_task_ismap: String(isMap),
    mapreduce_task_is_map: String(isMap),
    mapreduce_task_output_dir: job.output,
    mapreduce_job_local_dir: folders.work,
  };
  if (range !== undefined) {
    hadoop.mapreduce_map_input_file = `${range.container}/${range.name}`;
    hadoop.mapreduce_map_input_start = String(range.start);
    hadoop.mapreduce_map_input_length = String(range.length);
  }
  return {
    PATH: SCRIPT_PATH,
    LANG: "C.UTF-8",
    HOME: folders.work,
    ...optionNames(job.conf),
    ...hadoop,
    ...oldNames(hadoop),
    ...job.env,
    TMPDIR: folders.temp,
  };
}

/** The job's options, as Hadoop hands its configuration down: dots become underscores. */
function optionNames(conf: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(conf).map(([name, value]) => [name.replace(/\W/g, "_"), value]),
  );
}

const OLD_NAME: Record<string, string> = {
  mapreduce_job_id: "mapred_job_id",
  mapreduce_job_name: "mapred_job_name",
  mapreduce_job_maps: "mapred_map_tasks",
  mapreduce_job_reduces: "mapred_reduce_tasks",
  mapreduce_task_id: "mapred_tip_id",
  mapreduce_task_attempt_id: "mapred_task_id",
  mapreduce_task_partition: "mapred_task_partition",
  mapreduce_task_ismap: "mapred_task_is_map",
  mapreduce_task_output_dir: "mapred_work_output_dir",
  mapreduce_job_local_dir: "job_local_dir",
  mapreduce_map_input_file: "map_input_file",
  mapreduce_map_input_start: "map_input_start",
  mapreduce_map_input_length: "map_input_length",
};

function oldNames(current: Record<string, string>): Record<string, string> {
  const old: Record<string, string> = {};
  for (const [name, value] of Object.entries(current)) {
    const before = OLD_NAME[name];
    if (before !== undefined) old[before] = value;
  }
  return old;
}
