import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { credentials } from "@grpc/grpc-js";
import { ROLE, type Role } from "../../internal/model/certificates.ts";
import {
  Health,
  HealthCheckResponse_ServingStatus,
} from "../../internal/rpc/gen/grpc/health/v1/health_pb.ts";
import { ClusterService } from "../../internal/rpc/gen/mapreduce/v1/cluster_pb.ts";
import { JobService } from "../../internal/rpc/gen/mapreduce/v1/job_pb.ts";
import { outputOf, putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { openSession, type PlainSession } from "../support/plain_worker.ts";
import { ServerProcess, until } from "../support/processes.ts";

const run = promisify(execFile);
const SCRIPT = join(import.meta.dirname, "..", "..", "deploy", "tls", "make-certificates.sh");
const BUF = join(import.meta.dirname, "..", "..", "node_modules", ".bin", "buf");
const WORKER = join(import.meta.dirname, "..", "..", "cmd", "worker", "main.ts");
const PERMISSION_DENIED = 7;

/** Certificates of a folder: a real authority, and one made out to each part. */
const pathsIn = (folder: string, role: Role) => ({
  MR_TLS_CA: join(folder, "ca.crt"),
  MR_TLS_CERT: join(folder, `${ROLE[role]}.crt`),
  MR_TLS_KEY: join(folder, `${ROLE[role]}.key`),
});

describe("a cluster with certificates", () => {
  let folder: string;
  let own: string;
  let foreign: string;
  let cluster: TestCluster;
  let address: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mr-test-tls-"));
    [own, foreign] = [join(folder, "own"), join(folder, "foreign")];
    for (const each of [own, foreign]) await run(SCRIPT, [each]);
    cluster = await useCluster({ masters: 2, workers: 1, envOf: (role) => pathsIn(own, role) });
    await putText(cluster.client, "text", "a", "b\na\n");
    ({ address } = await cluster.client.json<{ address: string }>("/leader"));
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const sessionAs = (from: string, role: Role): PlainSession => {
    const { MR_TLS_CERT, MR_TLS_KEY } = pathsIn(from, role);
    const channel = credentials.createSsl(
      readFileSync(join(own, "ca.crt")),
      readFileSync(MR_TLS_KEY),
      readFileSync(MR_TLS_CERT),
    );
    return openSession(address, channel, { "grpc.ssl_target_name_override": ROLE.master });
  };
  const transportAs = (role: Role | undefined) =>
    createGrpcTransport({
      baseUrl: `${role === undefined ? "http" : "https"}://${address}`,
      nodeOptions:
        role === undefined
          ? {}
          : {
              ca: readFileSync(join(own, "ca.crt")),
              cert: readFileSync(pathsIn(own, role).MR_TLS_CERT),
              key: readFileSync(pathsIn(own, role).MR_TLS_KEY),
              servername: ROLE.master,
            },
    });
  const codeOf = (answer: Promise<unknown>) =>
    answer.then(
      () => "ok",
      (error: { code: number }) => error.code,
    );
  const job = (request: object = {}) =>
    runJob(cluster.client, { mapper: "cat", reducer: "cat", data: "text", ...request });

  it("runs a job", async () => {
    const { id, state } = await job();
    assert.equal(state, "succeeded");
    assert.equal(String(await outputOf(cluster.client, id)), "a\t\nb\t\n");
  });

  it("never meets a worker whose certificate is another authority's, or that has none", async () => {
    const env = {
      ...process.env,
      RPC_ADDRESS: address,
      MR_STORE_DIR: join(cluster.dir, "store"),
      MR_SCRATCH_DIR: join(folder, "scratch"),
      MR_WORKER_NAME: "stranger",
    };
    const { MR_TLS_CA } = pathsIn(own, "worker");
    for (const certificates of [
      pathsIn(foreign, "worker"),
      { ...pathsIn(foreign, "worker"), MR_TLS_CA },
      { MR_TLS_CA: "" },
    ]) {
      const stranger = new ServerProcess(process.execPath, [WORKER], { ...env, ...certificates });
      try {
        const complaint = until("its complaint", () => /certificate|alert/.test(stranger.said));
        await complaint.catch((error: Error) => assert.fail(`${error.message}: ${stranger.said}`));
      } finally {
        await stranger.stop();
      }
    }
    const { workers } = await cluster.client.json<{ workers: { id: string }[] }>("/workers");
    assert.deepEqual(
      workers.map(({ id }) => id.slice(0, 8)),
      ["worker-1"],
    );
    const stranger = sessionAs(foreign, "worker");
    assert.equal((await stranger.failed).code, PERMISSION_DENIED);
    stranger.close();
  });

  it("takes a worker's session from a worker only", async () => {
    const welcome = sessionAs(own, "worker");
    welcome.stream.write({ hello: { workerId: "plain", host: "test", pid: 1, slots: 1 } });
    await until("welcome", () => welcome.heard.some(({ message }) => message === "welcome"));
    welcome.stream.write({ goodbye: {} });
    welcome.close();
    for (const refused of [
      sessionAs(own, "proxy"),
      sessionAs(own, "master"),
      openSession(address),
    ]) {
      assert.equal((await refused.failed).code, PERMISSION_DENIED);
      refused.close();
    }
  });

  it("takes jobs from a proxy only, and tells anybody of its health and nothing else", async () => {
    for (const role of [undefined, "worker", "master", "proxy"] as const) {
      const transport = transportAs(role);
      const isProxy = role === "proxy" ? "ok" : PERMISSION_DENIED;
      const jobs = createClient(JobService, transport);
      const clusterService = createClient(ClusterService, transport);
      assert.equal(await codeOf(jobs.list({})), isProxy, `list as ${role}`);
      assert.equal(await codeOf(clusterService.listWorkers({})), isProxy, `workers as ${role}`);
      const asked = role === undefined ? PERMISSION_DENIED : "ok";
      assert.equal(await codeOf(clusterService.getLeader({})), asked, `leader as ${role}`);
      const { status } = await createClient(Health, transport).check({});
      assert.equal(status, HealthCheckResponse_ServingStatus.SERVING);
    }
  });

  it("is asked by buf curl with a proxy's certificate, without a schema", async () => {
    const { MR_TLS_CA, MR_TLS_CERT, MR_TLS_KEY } = pathsIn(own, "proxy");
    const { stdout } = await run(BUF, [
      ...["curl", "--cacert", MR_TLS_CA, "--cert", MR_TLS_CERT, "--key", MR_TLS_KEY],
      ...["--servername", ROLE.master, `https://${address}/mapreduce.v1.JobService/List`],
    ]);
    assert.equal((JSON.parse(stdout) as { jobs: object[] }).jobs.length, 1);
  });

  it("refuses a Completed for another worker's attempt", async () => {
    const [granted, forger] = [sessionAs(own, "worker"), sessionAs(own, "worker")];
    try {
      const hello = (workerId: string) => ({ hello: { workerId, host: "test", pid: 1, slots: 1 } });
      granted.stream.write(hello("granted"));
      forger.stream.write(hello("forger"));
      for (const { heard } of [granted, forger])
        await until("welcome", () => heard.some(({ message }) => message === "welcome"));
      // The cluster's own worker may take one of them, not both slots of it all five.
      await putText(cluster.client, "dfs-scripts", "sleep.py", "import time\ntime.sleep(600)\n");
      const asked = await cluster.client.json<{ id: string }>("/request", {
        method: "POST",
        headers: { prefer: "respond-async" },
        body: JSON.stringify({ mapper: "sleep.py", data: "text", m_num: 5, r_num: 0 }),
      });
      granted.stream.write({ ready: { free: 1, grantsSeen: 0 } });
      const { grant } = await until("a grant", () =>
        granted.heard.find(({ message }) => message === "grant"),
      );
      const attempt = grant?.attempt ?? "";
      const task = attempt.split("/")[1];
      const part = {
        container: "dfs-dest",
        name: `${asked.id}/part-00000`,
        size: 0,
        token: "forged",
      };
      forger.stream.write({
        completed: { attempt, output: { part }, stats: { recordsIn: 0, counters: {} } },
      });
      // What is answered later shows that it was heard: the forger is still there, and was told nothing.
      forger.stream.write({ heartbeat: { seq: 7, attempts: [] } });
      await until("its heartbeat", () => forger.heard.some(({ message }) => message === "renewed"));
      assert.ok(!forger.heard.some(({ message }) => message === "settled"));
      const { tasks } = await cluster.client.json<{ tasks: { id: string; state: string }[] }>(
        `/jobs/${asked.id}/tasks`,
      );
      assert.equal(tasks.find(({ id }) => id === task)?.state, "running");
      await cluster.client.json(`/jobs/${asked.id}`, { method: "DELETE" });
    } finally {
      for (const session of [granted, forger]) {
        session.stream.write({ goodbye: {} });
        session.close();
      }
    }
  });

  it("takes up renewed certificates without a restart", async () => {
    const serial = () =>
      new Promise<string>((resolve, reject) => {
        const { MR_TLS_CA, MR_TLS_CERT, MR_TLS_KEY } = pathsIn(own, "worker");
        const port = Number(address.slice(address.lastIndexOf(":") + 1));
        const socket = connectTls({
          host: "127.0.0.1",
          port,
          servername: ROLE.master,
          ca: readFileSync(MR_TLS_CA),
          cert: readFileSync(MR_TLS_CERT),
          key: readFileSync(MR_TLS_KEY),
        });
        socket.once("secureConnect", () => {
          resolve(socket.getPeerCertificate().serialNumber);
          socket.destroy();
        });
        socket.once("error", reject);
      });
    const first = await serial();
    await run(SCRIPT, [own]);
    await until("a new certificate", async () => (await serial().catch(() => first)) !== first);
    assert.equal((await job()).state, "succeeded");
  });

  it("goes on when its leader dies", async () => {
    const { pid } = await cluster.client.json<{ pid: number }>("/leader");
    process.kill(pid, "SIGKILL");
    const { id, state } = await job({ output: "results/after" });
    assert.equal(state, "succeeded");
    assert.equal(String(await outputOf(cluster.client, id)), "a\t\nb\t\n");
  });
});

describe("certificates that cannot be used", () => {
  it("stop a process with what is wrong", async () => {
    const folder = await mkdtemp(join(tmpdir(), "mr-test-tls-"));
    try {
      await run(SCRIPT, [folder]);
      const good = pathsIn(folder, "worker");
      const cases: [env: Record<string, string>, message: RegExp][] = [
        [{ MR_TLS_CA: good.MR_TLS_CA }, /MR_TLS_CA, MR_TLS_CERT and MR_TLS_KEY belong together/],
        [{ ...good, MR_TLS_CERT: join(folder, "none.crt") }, /none\.crt.*ENOENT/s],
        [{ ...good, MR_TLS_KEY: join(folder, "mr-proxy.key") }, /mr-proxy\.key.*mismatch/s],
      ];
      for (const [env, message] of cases) {
        const ended = await run(process.execPath, [WORKER], {
          env: { ...process.env, MR_STORE_DIR: folder, MR_SCRATCH_DIR: join(folder, "s"), ...env },
          timeout: 20_000,
        }).catch((error) => error);
        assert.equal(ended.code, 1);
        assert.match(ended.stderr, message);
      }
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
