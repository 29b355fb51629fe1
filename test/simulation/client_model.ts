import assert from "node:assert/strict";
import { jobId } from "../../internal/model/ids.ts";
import { type JobSpec, parseJobRequest } from "../../internal/model/job_request.ts";
import { isMapResult } from "./history.ts";
import type { Scene } from "./scene.ts";

/** A client: asks for a job until it is told of it, and sometimes thinks better of it. */
export function submitJob(scene: Scene, spec = chooseJob(scene)): void {
  const { world, coordinator } = scene;
  const key = `key-${world.between(1, 1e9)}`;
  let told = "";
  const hear = (job: string) => {
    assert.ok(told === "" || told === job, "one request made two jobs");
    if (told !== "") return;
    told = job;
    world.note(`client is told of ${job}`);
    if (world.chance(0.2)) world.after(world.between(0, 20_000), () => cancelJob(scene, job));
    if (spec.steps.length > 0 && spec.from === "")
      world.after(world.between(5_000, 30_000), () => goOn(scene, job));
  };
  const ask = () => {
    if (told !== "") return;
    const id = jobId(1.7e12 + world.nowMs, String(world.between(100_000, 999_999)));
    coordinator.leader()?.submit(id, spec, key, hear);
    world.after(world.between(200, 3_000), ask);
  };
  ask();
}

function chooseJob(scene: Scene): JobSpec {
  return scene.world.chance(0.15) ? choosePipeline(scene) : chooseSingle(scene);
}

/** With what has failed replaced, a pipeline goes on from where it did. */
function goOn(scene: Scene, job: string): void {
  const report = scene.history.reports.get(job);
  if (report === undefined || report.state === "succeeded") return;
  const last = report.record.spec.steps.findIndex(({ m_num }) => m_num === UNLUCKY);
  const steps = report.record.spec.steps.map(({ mapper, reducer, m_num, r_num }, i) => ({
    mapper,
    reducer,
    m_num: i === last ? 1 : m_num,
    r_num,
  }));
  const { name, data } = report.record.spec;
  submitJob(scene, parseJobRequest({ name, data, steps, from: job, max_attempts: 6 }));
}

/** So many map tasks cannot be planned: the job fails. */
const UNLUCKY = 13;

function choosePipeline({ world }: Scene): JobSpec {
  const step = () => ({
    mapper: "m.py",
    reducer: "r.py",
    m_num: world.chance(0.15) ? UNLUCKY : world.between(1, 5),
    r_num: world.pick([0, 1, 3]),
  });
  const steps = Array.from({ length: world.between(1, 3) }, step);
  const name = world.chance(0.5) ? "steady" : "fickle";
  return parseJobRequest({
    name,
    data: "text",
    steps,
    max_attempts: world.pick([1, 3]),
  });
}

function chooseSingle({ world, history }: Scene): JobSpec {
  const finished = [...history.reports.values()].filter(isMapResult);
  const from = world.chance(0.5) ? world.pick(finished)?.record : undefined;
  const [phase, reduces] =
    from !== undefined
      ? ["reduce", from.spec.r_num]
      : world.chance(0.2)
        ? ["map", 2]
        : [undefined, world.pick([0, 1, 3, 5, 8])];
  return parseJobRequest({
    name: world.chance(0.5) ? "steady" : "fickle",
    mapper: "m.py",
    reducer: "r.py",
    data: "text",
    m_num: world.chance(0.2) ? world.between(15, 40) : world.between(1, 14),
    r_num: reduces,
    phase,
    partitioner: from?.spec.partitioner || (world.chance(0.3) ? "range" : "hash"),
    from: from?.id,
    max_attempts: world.chance(0.1) ? 1 : 6,
    max_bad_records: world.pick([0, 0, 3]),
  });
}

export function cancelJob({ world, coordinator }: Scene, id: string): void {
  world.note(`cancel ${id}`);
  const leader = coordinator.leader();
  leader?.whenAwake(() => leader.post({ kind: "cancel", reply: 0, id }));
}
