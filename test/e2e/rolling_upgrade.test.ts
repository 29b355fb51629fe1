import assert from "node:assert/strict";
import { cp, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Client, type JobJson } from "../../cmd/mr/client.ts";
import { EtcdCoordinator } from "../../internal/coordination/etcd/etcd_coordinator.ts";
import { SqliteCoordinator } from "../../internal/coordination/sqlite/sqlite_coordinator.ts";
import type { Coordinator } from "../../internal/model/coordinator.ts";
import { outputOf, putText } from "../support/cluster.ts";
import { freePort, ServerProcess, scratchFolder, until } from "../support/processes.ts";
import { useEtcd } from "../support/servers.ts";

const ROOT = join(import.meta.dirname, "..", "..");

/**
 * The tree of tomorrow: all its records have fields more, in every object whose fields are known.
 * @param folder empty.
 */
async function makeNewerTree(folder: string): Promise<string> {
  for (const part of ["internal", "cmd", "package.json"])
    await cp(join(ROOT, part), join(folder, part), { recursive: true });
  await symlink(join(ROOT, "node_modules"), join(folder, "node_modules"));
  const more = `(_: string, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value) && !isMap(_)
      ? { ...value, ofTomorrow: [1] } : value`;
  const isMap = "const isMap = (name: string) => /^(env|conf|scripts|counters)$/.test(name);\n";
  let changed = 0;
  for (const name of ["record_writes.ts", "attempts.ts", "lost_outputs.ts"]) {
    const path = join(folder, "internal", "scheduler", name);
    const text = await readFile(path, "utf8");
    const now = text.replace(/JSON\.stringify\((value|done|job\.stale)\)/g, (_, what) => {
      changed += 1;
      return `JSON.stringify(${what}, ${more})`;
    });
    await writeFile(path, now + isMap);
  }
  assert.equal(changed, 3);
  return folder;
}

const CHANGES = 4;

/** Masters of both trees, one after the other; the rest is of this one. */
async function rolls(settings: Record<string, string>, coordinator: Coordinator): Promise<void> {
  await using folder = await scratchFolder("upgrade");
  await using newerFolder = await scratchFolder("newer");
  const trees = [ROOT, await makeNewerTree(newerFolder.path)];
  const ports = [await freePort(), await freePort()];
  const http = await freePort();
  const processes: ServerProcess[] = [];
  const start = (tree: string, role: string, more: Record<string, string>) => {
    const own = { MR_STORE_DIR: join(folder.path, "store"), ...(role !== "worker" && settings) };
    const env = { PATH: process.env.PATH, HOME: folder.path, ...own, ...more };
    const child = new ServerProcess(process.execPath, [join(tree, "cmd", role, "main.ts")], env);
    processes.push(child);
    return child;
  };
  const master = async (i: number) => {
    const child = start(trees[i % 2] as string, "master", { RPC_PORT: String(ports[i % 2]) });
    await until(`a master\n${child.said}`, () => child.said.includes("listening"));
    return child;
  };
  try {
    let leading = await master(0);
    start(ROOT, "proxy", { HTTP_PORT: String(http) });
    const addresses = ports.map((port) => `127.0.0.1:${port}`).join(",");
    for (const name of ["w1", "w2"])
      start(ROOT, "worker", {
        RPC_ADDRESS: addresses,
        MR_SLOTS: "2",
        MR_WORKER_NAME: name,
        MR_SCRATCH_DIR: join(folder.path, name),
      });
    const client = new Client(`http://127.0.0.1:${http}`);
    await until("workers", async () => {
      const ready = await client.json<{ workers: number }>("/readyz").catch(() => undefined);
      return ready?.workers === 2;
    });
    await putText(client, "text", "a", "b\na\n");
    await putText(client, "dfs-scripts", "slow.sh", "#!/bin/sh\nsleep 0.4\ncat\n");
    const request = { mapper: "slow.sh", reducer: "identity", data: "text", r_num: 2 };
    const ended: JobJson[] = [];
    let isOver = false;
    const load = async (m_num: number) => {
      while (!isOver)
        for await (const job of client.run({ ...request, m_num }, AbortSignal.timeout(120_000)))
          if (["succeeded", "failed", "cancelled"].includes(job.state)) ended.push(job);
    };
    const loads = [load(1), load(4), load(20)];
    for (let i = 1; i <= CHANGES; i += 1) {
      const next = await master(i);
      // An upgrade, and an accident.
      leading.signal(i === 3 ? "SIGKILL" : "SIGTERM");
      await leading.exited();
      await until("the other tree to lead", async () => {
        const leader = await coordinator.leader();
        return leader?.address === `127.0.0.1:${ports[i % 2]}`;
      });
      const before = ended.length;
      await until("jobs to go on", () => ended.length > before + 1, 60_000);
      leading = next;
    }
    isOver = true;
    await Promise.all(loads);
    for (const { id, state, attempts, error } of ended) {
      assert.equal(state, "succeeded", `${id}: ${JSON.stringify(error)}`);
      assert.equal(attempts.failed, 0);
      const lines = String(await outputOf(client, id))
        .trim()
        .split("\n");
      assert.deepEqual(lines.map((line) => line.trim()).toSorted(), ["a", "b"]);
    }
    const { jobs } = await client.json<{ jobs: JobJson[] }>("/jobs?limit=1000");
    assert.equal(jobs.length, new Set(ended.map(({ id }) => id)).size, "a job is gone");
    await checkKept(coordinator);
  } finally {
    for (const child of processes.reverse()) await child.stop();
  }
}

/** What the newer ones wrote is there after the older ones wrote it again. */
async function checkKept(coordinator: Coordinator): Promise<void> {
  let [ofBoth, ofOlder] = [0, 0];
  for await (const { key, value } of coordinator.list("job/")) {
    if (!key.endsWith("/report")) continue;
    const report = JSON.parse(value) as { record: object };
    if ("ofTomorrow" in report) continue;
    if ("ofTomorrow" in report.record) ofBoth += 1;
    else ofOlder += 1;
  }
  assert.ok(ofOlder > 0, "no job was an older leader's alone");
  assert.ok(ofBoth > 0, "no job was accepted by a newer leader and ended by an older one");
}

describe("masters of two versions, in turn and under load", () => {
  it("lose no job on SQLite", async () => {
    await using folder = await scratchFolder("state");
    const file = join(folder.path, "state.db");
    const coordinator = new SqliteCoordinator({ file, ttlMs: 3_000 });
    try {
      await rolls({ MR_SQLITE_FILE: file }, coordinator);
    } finally {
      await coordinator.close();
    }
  });

  it("lose no job on etcd", async () => {
    await using etcd = await useEtcd();
    const coordinator = new EtcdCoordinator({ address: etcd.address, ttlMs: 3_000 });
    try {
      await rolls({ ETCD_ADDRESS: etcd.address }, coordinator);
    } finally {
      await coordinator.close();
    }
  });
});
