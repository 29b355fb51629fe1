import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { LeaderRecord } from "../model/coordinator.ts";
import { MrError, messageOf } from "../model/errors.ts";
import type { JobView, TaskView, WorkerView } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import type { JobSpec } from "../model/job_request.ts";
import type { Assignment } from "../model/task.ts";
import {
  jobFromMessage,
  specToMessage,
  taskFromMessage,
  workerFromMessage,
} from "./conversions.ts";
import { fromConnectError } from "./errors.ts";
import { ClusterService, GetLeaderResponseSchema } from "./gen/mapreduce/v1/cluster_pb.ts";
import { JobService } from "./gen/mapreduce/v1/job_pb.ts";
import { grantFromWire } from "./session_conversions.ts";

const CALL_MS = 10_000;
const ASK_MS = 3_000;
const LEADER_PATH = `/${ClusterService.typeName}/${ClusterService.method.getLeader.name}`;
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** One HTTP/2 connection to one master, with pings: a peer that stands still is noticed. */
export class MasterConnection {
  private readonly sessions: Http2SessionManager;
  readonly jobs: Client<typeof JobService>;
  readonly cluster: Client<typeof ClusterService>;

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
  }

  close(): void {
    this.sessions.abort();
  }
}

/**
 * Asks a master who leads: by Connect's plain POST, on a connection that is kept for the next
 * question. When a leader dies, all workers ask at once, and again until there is another.
 * @param address HOST:PORT
 * @throws MrError `unavailable`
 */
export async function askLeader(address: string): Promise<LeaderRecord> {
  try {
    const response = await fetch(`http://${address}${LEADER_PATH}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
      signal: AbortSignal.timeout(ASK_MS),
    });
    const answer = (await response.json()) as JsonObject;
    if (!response.ok) throw new MrError("unavailable", String(answer.message));
    const { id, address: place, epoch, pid } = fromJson(GetLeaderResponseSchema, answer);
    return { id, address: place, epoch: Number(epoch), pid };
  } catch (cause) {
    if (cause instanceof MrError) throw cause;
    const { cause: deeper } = cause as Error;
    throw new MrError("unavailable", messageOf(deeper ?? cause), { cause });
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
