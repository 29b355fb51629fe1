import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { Certificates } from "../model/certificates.ts";
import { MrError } from "../model/errors.ts";
import type { JobView, TaskView, WorkerView } from "../model/job.ts";
import type {
  Counts,
  JobApi,
  JobsQuery,
  Page,
  PageQuery,
  Viewer,
  WorkersQuery,
} from "../model/job_api.ts";
import type { JobSpec } from "../model/job_request.ts";
import type { Assignment } from "../model/task.ts";
import {
  jobFromMessage,
  specToMessage,
  taskFromMessage,
  workerFromMessage,
} from "./conversions.ts";
import { fromConnectError } from "./errors.ts";
import { ClusterService } from "./gen/mapreduce/v1/cluster_pb.ts";
import { JobService } from "./gen/mapreduce/v1/job_pb.ts";
import { countsFromMessage, jobsQueryToMessage, viewerToMessage } from "./list_conversions.ts";
import { grantFromWire } from "./session_conversions.ts";
import { dialing } from "./tls.ts";

const CALL_MS = 10_000;
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** One HTTP/2 connection to one master, with pings: a peer that stands still is noticed. */
export class MasterConnection {
  private readonly sessions: Http2SessionManager;
  readonly jobs: Client<typeof JobService>;
  readonly cluster: Client<typeof ClusterService>;

  /** @param address HOST:PORT */
  constructor(address: string, certificates: Certificates | undefined) {
    const { scheme, tls } = dialing(certificates);
    const baseUrl = `${scheme}://${address}`;
    const pings = { pingIntervalMs: 2_000, pingTimeoutMs: 3_000, idleConnectionTimeoutMs: 60_000 };
    this.sessions = new Http2SessionManager(baseUrl, pings, tls);
    const transport = createGrpcTransport({
      baseUrl,
      sessionManager: this.sessions,
      readMaxBytes: MESSAGE_BYTES_MAX,
    });
    this.jobs = createClient(JobService, transport);
    this.cluster = createClient(ClusterService, transport);
  }

  close(): void {
    this.sessions.abort();
  }
}

/** The leader's JobApi, through RPC. */
export class RemoteJobApi implements JobApi {
  private readonly connection: MasterConnection;

  constructor(connection: MasterConnection) {
    this.connection = connection;
  }

  async submit(
    spec: JobSpec,
    idempotencyKey: string,
    owner: string,
  ): Promise<{ job: JobView; repeated: boolean }> {
    return call(async () => {
      const request = { spec: specToMessage(spec), idempotencyKey, owner };
      // Submitting looks for the scripts and the data in storage: give it time.
      const { job, repeated } = await this.connection.jobs.submit(request, { timeoutMs: 60_000 });
      return { job: jobFromMessage(job), repeated };
    });
  }

  async get(id: string): Promise<JobView> {
    return call(async () => {
      const { job } = await this.connection.jobs.get({ id }, { timeoutMs: CALL_MS });
      return jobFromMessage(job);
    });
  }

  async list(query: JobsQuery): Promise<Page<JobView>> {
    return call(async () => {
      const request = jobsQueryToMessage(query);
      const { jobs, next } = await this.connection.jobs.list(request, { timeoutMs: CALL_MS });
      return { items: jobs.map((job) => jobFromMessage(job)), next };
    });
  }

  async count(viewer: Viewer): Promise<Counts> {
    return call(async () => {
      const request = viewerToMessage(viewer);
      return countsFromMessage(await this.connection.jobs.count(request, { timeoutMs: CALL_MS }));
    });
  }

  async *watch(id: string, signal: AbortSignal): AsyncIterable<JobView> {
    try {
      let spec: JobSpec | undefined;
      for await (const { job } of this.connection.jobs.watch({ id }, { signal })) {
        const view = jobFromMessage(job, spec);
        spec = view.spec;
        yield view;
      }
    } catch (error) {
      throw fromConnectError(error, signal);
    }
  }

  async cancel(id: string): Promise<JobView> {
    return call(async () => {
      const { job } = await this.connection.jobs.cancel({ id }, { timeoutMs: CALL_MS });
      return jobFromMessage(job);
    });
  }

  async tasks(id: string, page: PageQuery): Promise<Page<TaskView>> {
    return call(async () => {
      const request = { id, ...page };
      const { tasks, next } = await this.connection.jobs.listTasks(request, {
        timeoutMs: CALL_MS,
      });
      return { items: tasks.map(taskFromMessage), next };
    });
  }

  async assignment(attempt: string): Promise<Assignment> {
    return call(async () => {
      const { grant } = await this.connection.jobs.getAssignment(
        { attempt },
        { timeoutMs: CALL_MS },
      );
      if (grant === undefined) throw new MrError("internal", "the leader's answer is empty");
      return grantFromWire(grant);
    });
  }

  async workers({ viewer, limit, after }: WorkersQuery): Promise<Page<WorkerView>> {
    return call(async () => {
      const request = { ...viewerToMessage(viewer), limit, after };
      const { workers, next } = await this.connection.cluster.listWorkers(request, {
        timeoutMs: CALL_MS,
      });
      return { items: workers.map(workerFromMessage), next };
    });
  }
}

async function call<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw fromConnectError(error);
  }
}
