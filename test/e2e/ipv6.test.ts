import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { putExample, putText, runJob, useCluster } from "../support/cluster.ts";
import { ServerProcess, scratchFolder, until } from "../support/processes.ts";

const run = promisify(execFile);
const CMD = join(import.meta.dirname, "..", "..", "cmd");
const ADDRESS = "fd00::12";

/** A network of its own, where nothing but loopback and this one address is. */
class Pod implements AsyncDisposable {
  private readonly holder = new ServerProcess("unshare", ["--net", "sleep", "3600"]);
  private readonly processes: ServerProcess[] = [];
  private readonly setUp: string;

  /** @param setUp commands that give the interface `eth` its addresses. */
  constructor(setUp: string) {
    this.setUp = setUp;
  }

  private within(command: string[]): [string, string[]] {
    return ["nsenter", [`--net=/proc/${this.holder.child.pid}/ns/net`, ...command]];
  }

  async up(): Promise<void> {
    await until("a network of its own", async () => {
      const { stdout } = await run("readlink", [
        `/proc/${this.holder.child.pid}/ns/net`,
        "/proc/self/ns/net",
      ]);
      return new Set(stdout.trim().split("\n")).size === 2;
    });
    await this.run(
      ...["sh", "-ec"],
      `ip link set lo up
       ip link add eth type veth peer name other; ip link set other up; ip link set eth up
       ${this.setUp}`,
    );
  }

  start(role: string, env: Record<string, string>): ServerProcess {
    const [program, argv] = this.within([process.execPath, join(CMD, role, "main.ts")]);
    const started = new ServerProcess(program, argv, { ...process.env, ...env });
    this.processes.push(started);
    return started;
  }

  async run(...command: string[]): Promise<string> {
    return (await run(...this.within(command))).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const started of this.processes.toReversed()) await started.stop();
    await this.holder.stop();
  }
}

const isAllowed =
  spawnSync("unshare", ["--net", "ip", "link", "add", "eth", "type", "veth"]).status === 0;

describe("IPv6", () => {
  it("carries a job: a master whose address is one", async () => {
    await using cluster = await useCluster({
      workers: 1,
      env: { POD_IP: "::1" },
    });
    const { address } = await cluster.client.json<{ address: string }>("/leader");
    assert.match(address, /^\[::1\]:\d+$/);
    await putExample(cluster.client, "word_count");
    await putText(cluster.client, "text", "a.txt", "b a b\n");
    const job = await runJob(cluster.client, {
      mapper: "word_count/mapper.py",
      reducer: "word_count/reducer.py",
      data: "text",
    });
    assert.equal(job.state, "succeeded", JSON.stringify(job));
  });

  it("is all that a pod has, and all find each other", {
    skip: !isAllowed && "no network can be made here",
  }, async () => {
    await using folder = await scratchFolder("ipv6");
    await using pod = new Pod(
      `ip addr add 169.254.7.7/16 dev eth; ip -6 addr add ${ADDRESS}/64 dev eth nodad`,
    );
    await pod.up();
    const store = { MR_STORE_DIR: join(folder.path, "store") };
    const shared = { ...store, MR_SQLITE_FILE: join(folder.path, "state.db") };
    const master = pod.start("master", { ...shared, POD_IP: "auto" });
    await until("the master's address", () => master.said.includes('"listening"'));
    assert.ok(master.said.includes(`"address":"[${ADDRESS}]:50051"`), master.said);
    pod.start("worker", {
      ...store,
      RPC_ADDRESS: `[${ADDRESS}]:50051`,
      MR_SCRATCH_DIR: join(folder.path, "scratch"),
    });
    pod.start("proxy", { ...shared, HTTP_HOST: "::", HTTP_PORT: "8080" });
    const ask = (url: string) =>
      pod.run("curl", "-sg", "--max-time", "20", url).catch(() => undefined);
    await until("the worker, by the proxy", async () =>
      (await ask(`http://[${ADDRESS}]:8080/workers`))?.includes('"connected"'),
    );
    const leader = await ask(`http://[${ADDRESS}]:8080/leader`);
    assert.ok(leader?.includes(`[${ADDRESS}]:50051`), leader);
    // Both families: what asks by IPv4, a port-forward say, is answered too.
    assert.ok((await ask("http://127.0.0.1:8080/healthz")) !== undefined);
    assert.ok((await ask("http://127.0.0.1:50051/")) !== undefined);
  });

  it("comes second where a machine has both families", {
    skip: !isAllowed && "no network can be made here",
  }, async () => {
    await using folder = await scratchFolder("ipv6");
    await using pod = new Pod(
      `ip -6 addr add ${ADDRESS}/64 dev eth nodad; ip addr add 10.7.0.12/24 dev eth`,
    );
    await pod.up();
    const master = pod.start("master", {
      MR_STORE_DIR: join(folder.path, "store"),
      MR_SQLITE_FILE: join(folder.path, "state.db"),
      POD_IP: "auto",
    });
    await until("the master's address", () => master.said.includes('"listening"'));
    assert.ok(master.said.includes('"address":"10.7.0.12:50051"'), master.said);
  });
});
