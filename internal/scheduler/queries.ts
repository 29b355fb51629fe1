import { MrError } from "../model/errors.ts";
import type { JobView } from "../model/job.ts";
import { planOf } from "./assignment.ts";
import type { Answer, Command, Event, Query } from "./events.ts";
import type { State } from "./state.ts";
import { viewJob, viewTasks, viewWorker } from "./views.ts";

/**
 * Answers go through the same ordered commands as everything else: a client never
 * sees a state that a crash could still undo (E1).
 */
export function answerQuery(
  state: State,
  event: Extract<Event, { kind: "query" }>,
  out: Command[],
): void {
  out.push({ kind: "reply", to: event.reply, answer: answer(state, event.query, event.atMs) });
}

/** In a list of many: without what can be long. */
function brief(job: JobView): JobView {
  const spec = { ...job.spec, env: {}, conf: {}, files: [], steps: job.spec.steps.slice(0, 1) };
  const error = job.error && { ...job.error, logTail: "" };
  return { ...job, spec, error, counters: {} };
}

function answer(state: State, query: Query, atMs: number): Answer {
  switch (query.kind) {
    case "jobs": {
      const jobs = [...state.jobs.values()]
        .filter((job) => job.record.pipeline === undefined)
        .filter((job) => !query.active || job.stage.kind !== "ended")
        .toSorted((a, b) => b.record.order - a.record.order);
      return { kind: "jobs", jobs: jobs.map((job) => brief(viewJob(state, job))) };
    }
    case "workers": {
      const workers = [...state.workers.values()].map((worker) => viewWorker(worker, atMs));
      return { kind: "workers", workers };
    }
    case "job":
    case "plan":
    case "tasks": {
      const job = state.jobs.get(query.id);
      if (job === undefined)
        return { kind: "error", error: new MrError("not_found", `no job ${query.id}`) };
      if (query.kind === "job") return { kind: "job", job: viewJob(state, job) };
      if (query.kind === "plan") {
        const plan = job.map.tasks.length === 0 ? undefined : planOf(job);
        return { kind: "plan", record: job.record, plan };
      }
      const archived =
        job.stage.kind === "ended" &&
        job.stage.cleanup !== "draining" &&
        job.map.tasks.length === 0;
      return { kind: "tasks", tasks: viewTasks(state, job), archived };
    }
  }
}
