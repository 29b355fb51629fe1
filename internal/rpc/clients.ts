import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { LeaderRecord } from "../model/coordinator.ts";
import { MrError } from "../model/errors.ts";
import type { JobView, TaskView, WorkerView } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import type { JobSpec } from "../model/job_request.ts";
import type { MasterMessage, WorkerMessage } from "../model/session.ts";
import type { Assignment } from "../model/task.ts";
import { AsyncQueue } from "./async_queue.ts";
import {
  jobFromMessage,
  specToMessage,
  taskFromMessage,
  workerFromMessage,
} from "./conversions.ts";
import { fromConnectError } from "./errors.ts";
import { ClusterService } from "./gen/mapreduce/v1/cluster_pb.ts";
import { JobService } from "./gen/mapreduce/v1/job_pb.ts";
import { type SessionRequest, WorkerService } from "./gen/mapreduce/v1/worker_pb.ts";
import {
  grantFromWire,
  masterMessageFromWire,
  workerMessageToWire,
} from "./session_conversions.ts";

const CALL_MS = 10_000;
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** One HTTP/2 connection to one master, with pings: a peer that stands still is noticed. */
export class MasterConnection {
  private readonly sessions: Http2SessionManager;
  readonly jobs: Client<typeof JobService>;
  readonly cluster: Client<typeof ClusterService>;
  readonly workers: Client<typeof WorkerService>;

  /** @param address HOST:PORT */
  constructor(address: string) {
    const baseUrl = `http://${address}`;
    this.sessions = new Http2SessionManager(baseUrl, {
      pingIntervalMs: 2_000,
      pingTimeoutMs: 3_000,
      idleConnectionTimeoutMs: 60_000,
    });
    const transport = createGrpcTransport({
      baseUrl,
      sessionManager: this.sessions,
      readMaxBytes: MESSAGE_BYTES_MAX,
    });
    this.jobs = createClient(JobService, transport);
    this.cluster = createClient(ClusterService, transport);
    this.workers = createClient(WorkerService, transport);
  }

  close(): void {
    this.sessions.abort();
  }
}

/** Asks a master who leads. @throws MrError `unavailable` */
export async function askLeader(connection: MasterConnection): Promise<LeaderRecord> {
  return call(async () => {
    const answer = await connection.cluster.getLeader({}, { timeoutMs: 3_000 });
    return {
      id: answer.id,
      address: answer.address,
      epoch: Number(answer.epoch),
      pid: answer.pid,
    };
  });
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
  ): Promise<{ job: JobView; repeated: boolean }> {
    return call(async () => {
      const request = { spec: specToMessage(spec), idempotencyKey };
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

  async list(active: boolean): Promise<JobView[]> {
    return call(async () => {
      const { jobs } = await this.connection.jobs.list({ active }, { timeoutMs: CALL_MS });
      return jobs.map(jobFromMessage);
    });
  }

  async *watch(id: string, signal: AbortSignal): AsyncIterable<JobView> {
    try {
      for await (const { job } of this.connection.jobs.watch({ id }, { signal }))
        yield jobFromMessage(job);
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

  async tasks(id: string): Promise<TaskView[]> {
    return call(async () => {
      const { tasks } = await this.connection.jobs.listTasks({ id }, { timeoutMs: CALL_MS });
      return tasks.map(taskFromMessage);
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

  async workers(): Promise<WorkerView[]> {
    return call(async () => {
      const { workers } = await this.connection.cluster.listWorkers({}, { timeoutMs: CALL_MS });
      return workers.map(workerFromMessage);
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

/** A worker's side of one session. */
export class WorkerStream {
  private readonly outgoing = new AsyncQueue<SessionRequest>();
  private readonly end = new AbortController();
  private readonly connection: MasterConnection;

  constructor(connection: MasterConnection) {
    this.connection = connection;
  }

  send(message: WorkerMessage): void {
    this.outgoing.push(workerMessageToWire(message));
  }

  /** What the leader says, until the stream ends; throws MrError when it breaks. */
  async *messages(): AsyncIterable<MasterMessage> {
    const { signal } = this.end;
    try {
      for await (const response of this.connection.workers.session(this.outgoing, { signal }))
        yield masterMessageFromWire(response);
    } catch (error) {
      if (!signal.aborted) throw fromConnectError(error);
    }
  }

  /** Ends after what was said has gone out. */
  close(): void {
    this.outgoing.close();
  }

  abort(): void {
    this.outgoing.close();
    this.end.abort(new MrError("aborted", "the session was given up"));
  }
}
