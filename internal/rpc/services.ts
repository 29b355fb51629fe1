import { create } from "@bufbuild/protobuf";
import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import { MrError } from "../model/errors.ts";
import { isJobId, parseAttemptId } from "../model/ids.ts";
import type { JobApi, LeaderLocator } from "../model/job_api.ts";
import { LIMIT } from "../model/limits.ts";
import {
  jobToMessage,
  specFromMessage,
  taskToMessage,
  unknownFields,
  workerToMessage,
} from "./conversions.ts";
import { toConnectError } from "./errors.ts";
import {
  file_grpc_health_v1_health,
  Health,
  HealthCheckResponse_ServingStatus,
} from "./gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "./gen/grpc/reflection/v1/reflection_pb.ts";
import { ClusterService, file_mapreduce_v1_cluster } from "./gen/mapreduce/v1/cluster_pb.ts";
import { file_mapreduce_v1_job, JobService } from "./gen/mapreduce/v1/job_pb.ts";
import { file_mapreduce_v1_worker, GrantSchema } from "./gen/mapreduce/v1/worker_pb.ts";
import {
  checkSubmission,
  countsToMessage,
  jobsQueryFromMessage,
  pageFromMessage,
  viewerFromMessage,
} from "./list_conversions.ts";
import { encodeView } from "./message_encoding.ts";
import { reflectionService } from "./reflection.ts";
import { grantToWire } from "./session_conversions.ts";

/** What a master's RPC server serves, beside the sessions of workers. */
export interface MasterPorts {
  jobs: JobApi;
  locator: LeaderLocator;
  /** False while the master drains. */
  serving(): boolean;
}

export function masterRoutes(ports: MasterPorts): (router: ConnectRouter) => void {
  return (router) => {
    router.service(JobService, jobService(ports.jobs));
    router.service(ClusterService, clusterService(ports));
    router.service(Health, healthService(ports));
    router.service(
      ServerReflection,
      reflectionService([
        file_mapreduce_v1_job,
        file_mapreduce_v1_worker,
        file_mapreduce_v1_cluster,
        file_grpc_health_v1_health,
      ]),
      { readMaxBytes: LIMIT.smallRequestBytes },
    );
  };
}

function jobService(jobs: JobApi): ServiceImpl<typeof JobService> {
  return {
    submit: guarded(async ({ spec, idempotencyKey, owner, $unknown }) => {
      if ($unknown !== undefined) throw unknownFields();
      checkSubmission(idempotencyKey, owner);
      const { job, repeated } = await jobs.submit(specFromMessage(spec), idempotencyKey, owner);
      return { job: jobToMessage(job), repeated };
    }),
    get: guarded(async ({ id }) => ({ job: jobToMessage(await jobs.get(knownId(id))) })),
    list: guarded(async (request) => {
      const { items, next } = await jobs.list(jobsQueryFromMessage(request));
      return { jobs: items.map((job) => jobToMessage(job)), next };
    }),
    count: guarded(async ({ viewer }) =>
      countsToMessage(await jobs.count(viewerFromMessage(viewer))),
    ),
    cancel: guarded(async ({ id }) => ({ job: jobToMessage(await jobs.cancel(knownId(id))) })),
    listTasks: guarded(async (request) => {
      const { items, next } = await jobs.tasks(knownId(request.id), pageFromMessage(request));
      return { tasks: items.map(taskToMessage), next };
    }),
    getAssignment: guarded(async ({ attempt }) => {
      if (parseAttemptId(attempt) === undefined)
        throw new MrError("not_found", "no attempt has such an id");
      return { grant: create(GrantSchema, grantToWire(await jobs.assignment(attempt)) as never) };
    }),
    async *watch({ id }, context) {
      try {
        const isJson = /json/i.test(context.requestHeader.get("content-type") ?? "");
        let isFirst = true;
        for await (const job of jobs.watch(knownId(id), context.signal)) {
          yield isJson ? { job: jobToMessage(job, isFirst) } : encodeView(job, isFirst);
          isFirst = false;
        }
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}

/** What is repeated in an answer, or looked up, is an id. @throws MrError `not_found` */
function knownId(id: string): string {
  if (!isJobId(id)) throw new MrError("not_found", "no job has such an id");
  return id;
}

function clusterService(ports: MasterPorts): ServiceImpl<typeof ClusterService> {
  return {
    getLeader: guarded(async () => {
      const leader = await ports.locator.leader();
      if (leader === undefined) throw new MrError("unavailable", "there is no leader just now");
      const { id, address, epoch, pid } = leader;
      return { id, address, epoch: BigInt(epoch), pid };
    }),
    listWorkers: guarded(async (request) => {
      const viewer = viewerFromMessage(request.viewer);
      const query = { viewer, ...pageFromMessage(request) };
      const { items, next } = await ports.jobs.workers(query);
      return { workers: items.map(workerToMessage), next };
    }),
  };
}

const WATCHES_MAX = 64;

/**
 * Of the service "liveness" (it answers), or any other: all serve until the master drains. One that
 * stands by serves, too.
 */
function healthService(ports: MasterPorts): ServiceImpl<typeof Health> {
  const { SERVING, NOT_SERVING } = HealthCheckResponse_ServingStatus;
  const status = ({ service }: { service: string }) => ({
    status: service === "liveness" || ports.serving() ? SERVING : NOT_SERVING,
  });
  let watches = 0;
  return {
    check: status,
    async *watch(request, context) {
      // Asked by anybody, without a certificate: each costs as much as a worker.
      if (watches >= WATCHES_MAX)
        throw toConnectError(new MrError("too_many", `health is watched ${watches} times`));
      watches += 1;
      try {
        yield status(request);
        await new Promise<void>((resolve) => {
          context.signal.addEventListener("abort", () => resolve(), { once: true });
        });
      } finally {
        watches -= 1;
      }
    },
  };
}

/** Turns our errors into the wire's. */
function guarded<I, O>(body: (request: I) => Promise<O>): (request: I) => Promise<O> {
  return async (request) => {
    try {
      return await body(request);
    } catch (error) {
      throw toConnectError(error);
    }
  };
}
