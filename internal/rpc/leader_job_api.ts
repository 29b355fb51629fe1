import { setTimeout as delay } from "node:timers/promises";
import type { Certificates } from "../model/certificates.ts";
import type { LeaderRecord } from "../model/coordinator.ts";
import { MrError } from "../model/errors.ts";
import { isFinal, type JobView, type TaskView, type WorkerView } from "../model/job.ts";
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
import type { Assignment } from "../model/task.ts";
import { MasterConnection, RemoteJobApi } from "./clients.ts";

/**
 * The JobApi of whoever leads: looks the leader up, and when it is gone waits for
 * the next one within the same call. Safe to repeat: a submission by its key, the
 * others by nature.
 */
export class LeaderJobApi implements JobApi {
  private readonly locator: LeaderLocator;
  private readonly patienceMs: number;
  private readonly certificates: Certificates | undefined;
  private current: { address: string; connection: MasterConnection } | undefined;

  /** @param patienceMs how long a call waits for there to be a leader that answers. */
  constructor(locator: LeaderLocator, patienceMs: number, certificates: Certificates | undefined) {
    this.locator = locator;
    this.patienceMs = patienceMs;
    this.certificates = certificates;
    // The next call dials with the new ones; what runs on the old connection may end there.
    certificates?.onChange(() => {
      this.current = undefined;
    });
  }

  submit(
    spec: JobSpec,
    idempotencyKey: string,
    owner: string,
  ): Promise<{ job: JobView; repeated: boolean }> {
    if (idempotencyKey === "")
      throw new MrError("internal", "a submission that may be repeated needs a key");
    return this.retried((api) => api.submit(spec, idempotencyKey, owner));
  }

  get(id: string): Promise<JobView> {
    return this.retried((api) => api.get(id));
  }

  list(query: JobsQuery): Promise<Page<JobView>> {
    return this.retried((api) => api.list(query));
  }

  count(viewer: Viewer): Promise<Counts> {
    return this.retried((api) => api.count(viewer));
  }

  cancel(id: string): Promise<JobView> {
    return this.retried((api) => api.cancel(id));
  }

  tasks(id: string, page: PageQuery): Promise<Page<TaskView>> {
    return this.retried((api) => api.tasks(id, page));
  }

  assignment(attempt: string): Promise<Assignment> {
    return this.retried((api) => api.assignment(attempt));
  }

  workers(query: WorkersQuery): Promise<Page<WorkerView>> {
    return this.retried((api) => api.workers(query));
  }

  async *watch(id: string, signal: AbortSignal): AsyncIterable<JobView> {
    let deadlineMs = performance.now() + this.patienceMs;
    for (let tries = 0; ; tries += 1) {
      try {
        for await (const job of (await this.api()).watch(id, signal)) {
          yield job;
          if (isFinal(job.state)) return;
          deadlineMs = performance.now() + this.patienceMs;
          tries = 0;
        }
      } catch (error) {
        if (!this.mayRetry(error, deadlineMs)) throw error;
      }
      if (signal.aborted) return;
      await pause(tries, signal);
    }
  }

  private async retried<T>(body: (api: JobApi) => Promise<T>): Promise<T> {
    const deadlineMs = performance.now() + this.patienceMs;
    for (let tries = 0; ; tries += 1) {
      try {
        return await body(await this.api());
      } catch (error) {
        if (!this.mayRetry(error, deadlineMs)) throw error;
      }
      await pause(tries);
    }
  }

  private mayRetry(error: unknown, deadlineMs: number): boolean {
    return MrError.is(error, "unavailable") && performance.now() < deadlineMs;
  }

  private async api(): Promise<JobApi> {
    const leader: LeaderRecord | undefined = await this.locator.leader();
    if (leader === undefined) throw new MrError("unavailable", "there is no leader just now");
    if (this.current?.address !== leader.address) {
      this.current?.connection.close();
      const connection = new MasterConnection(leader.address, this.certificates);
      this.current = { address: leader.address, connection };
    }
    return new RemoteJobApi(this.current.connection);
  }

  close(): void {
    this.current?.connection.close();
    this.current = undefined;
  }
}

async function pause(tries: number, signal?: AbortSignal): Promise<void> {
  const waitMs = Math.min(500, 50 * 2 ** Math.min(tries, 5)) * (0.5 + Math.random());
  await delay(waitMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
