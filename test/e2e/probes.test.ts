import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { readFile, utimes } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  Health,
  HealthCheckResponse_ServingStatus as Status,
} from "../../internal/rpc/gen/grpc/health/v1/health_pb.ts";
import { useCluster } from "../support/cluster.ts";
import { ServerProcess, scratchFolder, until } from "../support/processes.ts";

const run = promisify(execFile);
const RUNNER_PROBE = join(import.meta.dirname, ...["..", "..", "internal", "runner", "probe.py"]);
const WORKER = join(import.meta.dirname, "..", "..", "cmd", "worker");

describe("probes", () => {
  it("of a worker: it lives, and is ready as long as a leader knows it", async () => {
    await using cluster = await useCluster({ workers: 1 });
    await using folder = await scratchFolder("probes");
    const health = join(folder.path, "health");
    const probe = (what: string) =>
      run("sh", [join(WORKER, "probe.sh"), what], { env: { MR_HEALTH_DIR: health } }).then(
        () => true,
        () => false,
      );
    assert.equal(await probe("alive"), false);
    const { address, pid } = await cluster.client.json<{ address: string; pid: number }>("/leader");
    const worker = new ServerProcess(process.execPath, [join(WORKER, "main.ts")], {
      ...process.env,
      RPC_ADDRESS: address,
      MR_STORE_DIR: join(cluster.dir, "store"),
      MR_SCRATCH_DIR: join(folder.path, "scratch"),
      MR_HEALTH_DIR: health,
    });
    try {
      await until("a worker that is ready", () => probe("ready"));
      assert.equal(await probe("alive"), true);
      process.kill(pid, "SIGSTOP");
      await until("a worker without a leader", async () => !(await probe("ready")));
      assert.equal(await probe("alive"), true);
      process.kill(pid, "SIGCONT");
      await until("a worker that is ready again", () => probe("ready"));
      await worker.freeze();
      const longAgo = Date.now() / 1_000 - 60;
      await utimes(join(health, "alive"), longAgo, longAgo);
      assert.equal(await probe("alive"), false);
      worker.signal("SIGCONT");
      await until("a worker that lives again", () => probe("alive"));
    } finally {
      await worker.stop();
    }
    assert.equal(await probe("alive"), false);
  });

  it("of what is just starting wait for it, and say one line at most", async () => {
    await using folder = await scratchFolder("probes");
    const env = { PATH: process.env.PATH, MR_HEALTH_DIR: folder.path };
    const alive = run("sh", [join(WORKER, "probe.sh"), "alive", "25"], { env });
    const socket = join(folder.path, "runner");
    const runner = run("python3", ["-I", "-S", RUNNER_PROBE, socket]);
    // A runner shows whoever says nothing out.
    const server = createServer((connection) =>
      connection.on("end", () => connection.end()).resume(),
    );
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    writeFileSync(join(folder.path, "alive"), "");
    try {
      for (const probe of [alive, runner])
        assert.deepEqual(await probe, { stdout: "", stderr: "" });
    } finally {
      server.close();
    }
    const nobody = run("python3", ["-I", "-S", RUNNER_PROBE, "@mr-nobody-listens-here"]);
    await assert.rejects(nobody, (error: { code?: number; stdout?: string; stderr?: string }) => {
      assert.deepEqual([error.code, error.stdout], [1, ""]);
      assert.match(error.stderr ?? "", /^no runner at @mr-nobody-listens-here: .*\n$/);
      return true;
    });
    await assert.rejects(run("sh", [join(WORKER, "probe.sh"), "ready", "1"], { env }));
  });

  it("of masters: one that stands by serves like the one that leads", async () => {
    await using cluster = await useCluster({ masters: 2, workers: 1 });
    const { address } = await cluster.client.json<{ address: string }>("/leader");
    const logs = ["master-1", "master-2"].map((name) => join(cluster.dir, "logs", `${name}.log`));
    const addresses = await Promise.all(
      logs.map(async (log) => /"address":"([^"]+)"/.exec(await readFile(log, "utf8"))?.[1]),
    );
    assert.ok(addresses.includes(address));
    for (const each of addresses) {
      const health = createClient(Health, createGrpcTransport({ baseUrl: `http://${each}` }));
      for (const service of ["", "liveness", "readiness"])
        assert.equal(
          (await health.check({ service })).status,
          Status.SERVING,
          `${each} ${service}`,
        );
    }
  });
});
