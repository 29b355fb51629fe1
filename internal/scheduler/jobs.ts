import { canonical } from "../model/canonical.ts";
import { MrError } from "../model/errors.ts";
import { isFinal } from "../model/job.ts";
import { shuffleOf } from "../model/job_request.ts";
import { type JobRecord, key } from "../model/records.ts";
import type { Command, Event } from "./events.ts";
import { endJob } from "./job_end.ts";
import { countByOwner, turnsOf } from "./owners.ts";
import { continuePipeline, resumePoint } from "./pipeline.ts";
import { put } from "./record_writes.ts";
import { currentPhase, type Job, newJob, outputOf, type State, stateOf } from "./state.ts";
import { isPipeline, stepsOf } from "./steps.ts";
import { viewJob } from "./views.ts";

type At = Pick<Event, "atMs" | "wallMs">;
type Of<K extends Event["kind"]> = Extract<Event, { kind: K }>;

export function submitJob(state: State, event: Of<"submit">, out: Command[]): void {
  const refuse = (error: MrError) =>
    out.push({ kind: "reply", to: event.reply, answer: { kind: "error", error } });
  const known = findByKey(state, event.idempotencyKey);
  if (known !== undefined) {
    if (canonical(known.record.spec) !== canonical(withFrom(event.spec, known)))
      return void refuse(
        new MrError("conflict", "the Idempotency-Key was used for a different request"),
      );
    const job = viewJob(state, known);
    const answer = { kind: "submitted" as const, job, repeated: true };
    return void out.push({ kind: "reply", to: event.reply, answer });
  }
  const open = [...state.jobs.values()].filter(
    (job) => job.stage.kind !== "ended" && job.record.pipeline === undefined,
  );
  if (open.length >= state.config.queuedJobsMax)
    return void refuse(
      new MrError("too_many", `${open.length} jobs are waiting or running; try later`),
    );
  const own = open.filter((job) => job.record.owner === event.owner).length;
  if (event.owner !== "" && own >= state.config.jobsPerOwnerMax)
    return void refuse(
      new MrError("too_many", `${own} jobs of ${event.owner} are waiting or running; try later`),
    );
  const spec = event.spec.phase === "reduce" ? resolveFrom(state, event.spec) : event.spec;
  if (spec instanceof MrError) return void refuse(spec);
  const resumes = spec.steps.length > 0 && spec.from !== "";
  const resume = resumes ? resumePoint(state, spec) : undefined;
  if (resume instanceof MrError) return void refuse(resume);
  const record: JobRecord = {
    id: event.id,
    spec,
    submittedAtMs: event.wallMs,
    order: state.order + 1,
    idempotencyKey: event.idempotencyKey,
    owner: event.owner,
    scripts: event.scripts,
    ...(resume && { resume }),
  };
  const output = outputOf(record);
  if (open.some((job) => outputOf(job.record) === output))
    return void refuse(new MrError("conflict", `output: another job writes to ${output}`));
  state.order = record.order;
  const job = newJob(record);
  state.jobs.set(record.id, job);
  state.vacancy = true;
  out.push(put(key.spec(record.id), record));
  const answer = { kind: "submitted" as const, job: viewJob(state, job), repeated: false };
  out.push({ kind: "reply", to: event.reply, answer });
}

function findByKey(state: State, idempotencyKey: string): Job | undefined {
  if (idempotencyKey === "") return undefined;
  for (const job of state.jobs.values())
    if (job.record.idempotencyKey === idempotencyKey) return job;
  return undefined;
}

/** The job's `from` may have been chosen for it; a repeat did not name it either. */
function withFrom(spec: JobRecord["spec"], known: Job): JobRecord["spec"] {
  return spec.phase === "reduce" && spec.from === ""
    ? { ...spec, from: known.record.spec.from }
    : spec;
}

/** Finds the map phase that a reduce phase reads. */
function resolveFrom(state: State, spec: JobRecord["spec"]): JobRecord["spec"] | MrError {
  if (spec.from !== "") {
    const job = state.jobs.get(spec.from);
    if (job === undefined || job.record.spec.phase !== "map" || stateOf(job) !== "succeeded")
      return new MrError("invalid", `from: ${spec.from} is not a finished map phase`, {
        violations: [{ field: "from", message: "not the id of a finished map phase" }],
      });
    if (shuffleOf(job.record.spec) !== shuffleOf(spec))
      return new MrError(
        "invalid",
        `conf: job ${spec.from} cuts, orders or spreads its pairs otherwise`,
        {
          violations: [
            {
              field: "conf",
              message:
                "separators, key fields, partitioner and comparator are those of the map phase",
            },
          ],
        },
      );
    if (job.record.spec.r_num !== spec.r_num)
      return new MrError("invalid", `r_num: job ${spec.from} was made for another r_num`, {
        violations: [
          { field: "r_num", message: `the map phase was made for ${job.record.spec.r_num}` },
        ],
      });
    return spec;
  }
  const jobs = [...state.jobs.values()].filter(
    (job) =>
      job.record.spec.phase === "map" &&
      stateOf(job) === "succeeded" &&
      job.record.spec.mapper === spec.mapper &&
      job.record.spec.r_num === spec.r_num &&
      isSameList(job.record.spec.data, spec.data) &&
      shuffleOf(job.record.spec) === shuffleOf(spec),
  );
  const newest = jobs.toSorted((a, b) => b.record.order - a.record.order)[0];
  if (newest !== undefined) return { ...spec, from: newest.record.id };
  const message = `no finished map phase of ${spec.mapper} over ${spec.data.join(", ")} with r_num ${spec.r_num}`;
  return new MrError("invalid", message, { violations: [{ field: "phase", message }] });
}

function isSameList(a: string[], b: string[]): boolean {
  return a.length === b.length && a.every((text, i) => text === b[i]);
}

export function startQueued(state: State, at: At, out: Command[]): void {
  if (!state.vacancy) return;
  state.vacancy = false;
  const active: Job[] = [];
  const queued: Job[] = [];
  // Pipelines take no place of their own: each gives its own to its step, which is visited next.
  for (const job of state.jobs.values()) {
    if (job.stage.kind === "queued" && isPipeline(job)) continuePipeline(state, job, at, out);
    else if (job.stage.kind === "queued") queued.push(job);
    else if (hasPlace(state, job, at.atMs)) active.push(job);
  }
  const owners = countByOwner([...active, ...queued]).size;
  const shareMin = Math.max(1, Math.floor(state.config.activeJobsMax / owners));
  for (const job of inTurn(queued, active)) {
    // Jobs of a lower priority are no reason to wait: theirs are the slots that are left over.
    const before = active.filter(({ record }) => record.spec.priority >= priorityOf(job));
    // Nor are those that others have beyond their share, for one that has less than its own.
    const own = before.filter(({ record }) => record.owner === job.record.owner);
    if (before.length >= state.config.activeJobsMax && own.length >= shareMin) continue;
    job.stage = { kind: "planning" };
    job.activeSinceMs = at.atMs;
    active.push(job);
    out.push({ kind: "plan", job: job.record });
    out.push({ kind: "changed", job: job.record.id });
  }
  state.queued = queued.some(({ stage }) => stage.kind === "queued");
}

function priorityOf({ record }: Job): number {
  return record.spec.priority;
}

/** The highest priority first; then one of whoever has fewest, however many another has waiting. */
function inTurn(queued: Job[], active: Job[]): Job[] {
  const byPriority = (a: Job, b: Job) => priorityOf(b) - priorityOf(a);
  const ordered = queued.toSorted((a, b) => byPriority(a, b) || a.record.order - b.record.order);
  const turns = turnsOf(ordered, countByOwner(active));
  const turnOf = (job: Job) => turns.get(job) ?? 0;
  return ordered.toSorted((a, b) => byPriority(a, b) || turnOf(a) - turnOf(b));
}

/** Whether it counts among the active ones: it runs, or will at once when there is a slot. */
function hasPlace({ config }: State, job: Job, atMs: number): boolean {
  const { kind } = job.stage;
  if (kind === "ended" || kind === "steps" || kind === "queued") return false;
  if (job.running > 0 || (currentPhase(job)?.ready.length ?? 0) > 0) return true;
  return atMs - job.activeSinceMs < config.idlePlaceMs;
}

/** What keeps a place without using it loses it with time, not by an event. */
export function lookAtQueue(state: State, atMs: number): void {
  if (!state.queued || atMs - state.queueSeenMs < QUEUE_LOOK_MS) return;
  state.queueSeenMs = atMs;
  state.vacancy = true;
}

const QUEUE_LOOK_MS = 1_000;

export function cancelJob(state: State, event: Of<"cancel">, out: Command[]): void {
  const job = state.jobs.get(event.id);
  const reply = (answer: Extract<Command, { kind: "reply" }>["answer"]) =>
    out.push({ kind: "reply", to: event.reply, answer });
  if (job === undefined)
    return void reply({ kind: "error", error: new MrError("not_found", `no job ${event.id}`) });
  if (job.stage.kind === "steps") return cancelSteps(state, job, event, out);
  // S5: what is being published is past its point of no return.
  if (job.stage.kind === "committing" || stateOf(job) === "succeeded" || stateOf(job) === "failed")
    return void reply({
      kind: "error",
      error: new MrError("conflict", `job ${event.id} is ${stateOf(job)}; it cannot be cancelled`),
    });
  if (!isFinal(stateOf(job))) endJob(state, job, { state: "cancelled" }, event, out);
  reply({ kind: "job", job: viewJob(state, job) });
}

/** Of a pipeline, the step that runs; one that is being published may end, but nothing follows it. */
function cancelSteps(state: State, job: Job, event: Of<"cancel">, out: Command[]): void {
  const steps = stepsOf(state, job);
  const current = steps.at(-1);
  const isLast = current?.record.pipeline?.step === job.record.spec.steps.length - 1;
  const reply = (answer: Extract<Command, { kind: "reply" }>["answer"]) =>
    out.push({ kind: "reply", to: event.reply, answer });
  const isCommitting = current?.stage.kind === "committing";
  if (isCommitting && isLast) {
    const message = `the last step of job ${event.id} is being published; it cannot be cancelled`;
    return void reply({ kind: "error", error: new MrError("conflict", message) });
  }
  endJob(state, job, { state: "cancelled" }, event, out);
  if (current !== undefined && !isCommitting && !isFinal(stateOf(current)))
    endJob(state, current, { state: "cancelled" }, event, out);
  reply({ kind: "job", job: viewJob(state, job) });
}
