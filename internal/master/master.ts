import { randomInt } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Coordinator, LeaderInfo, LeaderRecord } from "../model/coordinator.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import { type AttemptId, type JobId, jobId, parseAttemptId } from "../model/ids.ts";
import type { JobView, TaskView, WorkerView } from "../model/job.ts";
import type {
  Counts,
  JobApi,
  JobsQuery,
  LeaderLocator,
  Page,
  PageQuery,
  Viewer,
  WorkersQuery,
} from "../model/job_api.ts";
import type { JobSpec } from "../model/job_request.ts";
import type { Logger } from "../model/logger.ts";
import type { ObjectStore } from "../model/object_store.ts";
import type { WorkerLink, WorkerListener, WorkerSessions } from "../model/session.ts";
import type { Assignment } from "../model/task.ts";
import { assignmentFrom, taskJobFrom } from "../scheduler/assignment.ts";
import { tasksPage } from "../scheduler/job_lists.ts";
import { Recovery } from "../scheduler/recover.ts";
import type { SchedulerConfig } from "../scheduler/state.ts";
import { checkAgainstStorage } from "./admission.ts";
import { EarlySession } from "./early_session.ts";
import { LeaderTerm } from "./leader_term.ts";

export interface MasterOptions {
  coordinator: Coordinator;
  store: ObjectStore;
  logger: Logger;
  scheduler: SchedulerConfig;
  /** Whether jobs may have their scripts make connections. */
  networkAllowed: boolean;
}

const NO_NETWORK =
  "the operator does not permit jobs with network (MR_NETWORK_JOBS=allow on the masters)";
const RETRY_MS = 500;
/** For so long an answer of the coordinator's is passed on to others that ask. */
const LEADER_FRESH_MS = 100;

/**
 * One of several masters. Modes, and what ends them:
 *   standby  campaigns; ends when elected
 *   taking over  reads all records; ends in leading, or in standby if it fails
 *   leading  serves; ends when the term does (deposed, or handed over)
 */
export class Master implements JobApi, WorkerSessions, LeaderLocator {
  private readonly options: MasterOptions;
  private readonly stopping = new AbortController();
  private term: LeaderTerm | undefined;
  private running: Promise<void> | undefined;
  /** Sessions that wait for the term to begin; defined while this master takes over. */
  private early: EarlySession[] | undefined;
  private asked: { atMs: number; leader: Promise<LeaderRecord | undefined> } | undefined;

  constructor(options: MasterOptions) {
    this.options = options;
  }

  /** Campaigns from now on, under this name and address. */
  start(self: LeaderInfo): void {
    this.running ??= this.run(self);
  }

  private async run(self: LeaderInfo): Promise<void> {
    const { logger } = this.options;
    const { signal } = this.stopping;
    while (!signal.aborted) {
      try {
        await this.serveTerm(self);
      } catch (error) {
        if (signal.aborted) return;
        logger.warn({ error: messageOf(error) }, "the term could not begin; campaigning again");
        await delay(RETRY_MS, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  private async serveTerm(self: LeaderInfo): Promise<void> {
    const { coordinator, logger, scheduler, store } = this.options;
    const leadership = await coordinator.campaign(self, this.stopping.signal);
    const startMs = performance.now();
    const early: EarlySession[] = [];
    this.early = early;
    try {
      const recovery = new Recovery();
      let records = 0;
      for (const prefix of ["job/", "worker/"])
        for await (const record of coordinator.list(prefix)) {
          recovery.read(record);
          records += 1;
        }
      await failurePoint("master.takeover.read");
      const at = { atMs: performance.now(), wallMs: Date.now() };
      const { state, commands } = recovery.finish(scheduler, leadership.epoch, at);
      this.term = new LeaderTerm({ leadership, state, commands, store, logger });
      const tookMs = Math.round(performance.now() - startMs);
      logger.info({ epoch: leadership.epoch, records, jobs: state.jobs.size, tookMs }, "leading");
      for (const session of early) session.begin(this.term);
    } catch (error) {
      for (const session of early) session.giveUp();
      await leadership.resign();
      throw error;
    } finally {
      this.early = undefined;
    }
    // Told to stop while it took over: what began must still be handed on.
    if (this.stopping.signal.aborted) await this.term.handOver();
    await this.term.ended;
    this.term = undefined;
  }

  /** As of a moment ago: when a leader dies, all its workers ask at once, and again. */
  async leader(): Promise<LeaderRecord | undefined> {
    const nowMs = performance.now();
    if (this.asked === undefined || nowMs - this.asked.atMs > LEADER_FRESH_MS)
      this.asked = { atMs: nowMs, leader: this.options.coordinator.leader() };
    return this.asked.leader;
  }

  /** The present term. @throws MrError `unavailable`, saying who leads instead. */
  private async lead(): Promise<LeaderTerm> {
    if (this.term !== undefined) return this.term;
    const leader = await this.leader().catch(() => undefined);
    throw new MrError(
      "unavailable",
      leader === undefined
        ? "there is no leader just now"
        : `this master does not lead; ${leader.address} does`,
    );
  }

  attach(link: WorkerLink): WorkerListener {
    if (this.term !== undefined) return this.term.attach(link);
    if (this.early === undefined) throw new MrError("unavailable", "this master does not lead");
    const session = new EarlySession(link);
    this.early.push(session);
    return session;
  }

  async submit(
    spec: JobSpec,
    idempotencyKey: string,
    owner: string,
  ): Promise<{ job: JobView; repeated: boolean }> {
    const term = await this.lead();
    if (spec.network && !this.options.networkAllowed)
      throw new MrError("invalid", NO_NETWORK, {
        violations: [{ field: "network", message: NO_NETWORK }],
      });
    // A repeat is answered from the record: what it named may be gone by now.
    const scripts = term.knows(idempotencyKey)
      ? {}
      : await checkAgainstStorage(this.options.store, spec);
    const id = jobId(Date.now(), randomName());
    const asked = { kind: "submit" as const, id, spec, idempotencyKey, owner, scripts };
    const answer = await term.ask(asked);
    if (answer.kind !== "submitted") throw new MrError("internal", "a mismatched answer");
    this.options.logger.info({ job: answer.job.id, repeated: answer.repeated }, "job accepted");
    return { job: answer.job, repeated: answer.repeated };
  }

  async get(id: JobId): Promise<JobView> {
    return (await (await this.lead()).query({ kind: "job", id }, "job")).job;
  }

  async list(query: JobsQuery): Promise<Page<JobView>> {
    return (await (await this.lead()).query({ kind: "jobs", ...query }, "jobs")).jobs;
  }

  async count(viewer: Viewer): Promise<Counts> {
    return (await (await this.lead()).query({ kind: "counts", viewer }, "counts")).counts;
  }

  async *watch(id: JobId, signal: AbortSignal): AsyncIterable<JobView> {
    yield* (await this.lead()).watch(id, signal);
  }

  async cancel(id: JobId): Promise<JobView> {
    const answer = await (await this.lead()).ask({ kind: "cancel", id });
    if (answer.kind !== "job") throw new MrError("internal", "a mismatched answer");
    return answer.job;
  }

  async tasks(id: JobId, page: PageQuery): Promise<Page<TaskView>> {
    const term = await this.lead();
    const { tasks, archived } = await term.query({ kind: "tasks", id, ...page }, "tasks");
    return archived ? tasksPage(await term.archive.readTasks(id), page) : tasks;
  }

  async assignment(attempt: AttemptId): Promise<Assignment> {
    const name = parseAttemptId(attempt);
    if (name === undefined) throw new MrError("not_found", `there is no attempt ${attempt}`);
    const term = await this.lead();
    const { record, plan: live } = await term.query({ kind: "plan", id: name.job }, "plan");
    const plan = live ?? (await term.archive.readPlan(name.job, name));
    const { kind, index } = name;
    if (index >= (kind === "map" ? plan.maps : plan.reduces))
      throw new MrError("not_found", `job ${name.job} has no task ${name.task}`);
    if (kind === "reduce" && plan.sources.length < plan.maps)
      throw new MrError("conflict", `the map tasks of job ${name.job} are not all done`);
    return assignmentFrom(taskJobFrom(record, plan, kind), plan, name, attempt);
  }

  async workers(query: WorkersQuery): Promise<Page<WorkerView>> {
    return (await (await this.lead()).query({ kind: "workers", ...query }, "workers")).workers;
  }

  /** Hands over leadership, if it has it, and campaigns no more. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.term?.handOver();
    await this.running;
  }
}

function randomName(): string {
  return randomInt(36 ** 6)
    .toString(36)
    .padStart(6, "0");
}
