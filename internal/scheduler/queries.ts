import { MrError } from "../model/errors.ts";
import { planOf } from "./assignment.ts";
import type { Answer, Command, Event, Query } from "./events.ts";
import { countAll, jobsPage, tasksPage, workersPage } from "./job_lists.ts";
import type { State } from "./state.ts";
import { viewJob, viewTasks } from "./views.ts";

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

function answer(state: State, query: Query, atMs: number): Answer {
  switch (query.kind) {
    case "jobs":
      return { kind: "jobs", jobs: jobsPage(state, query) };
    case "counts":
      return { kind: "counts", counts: countAll(state, query.viewer, atMs) };
    case "workers":
      return { kind: "workers", workers: workersPage(state, query, atMs) };
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
      return { kind: "tasks", tasks: tasksPage(viewTasks(state, job), query), archived };
    }
  }
}
