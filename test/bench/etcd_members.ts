/**
 * What a member of etcd that fails costs jobs and terms: a real etcd of three, real masters and
 * workers, and jobs of about 1.5 s one after the other, before and while a member is killed, frozen
 * or cut off; once one that follows, once the one that leads etcd.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Client, type JobJson } from "../../cmd/mr/client.ts";
import { LocalCluster } from "../../cmd/mr/local_cluster.ts";
import { type EtcdCluster, type MemberFault, useEtcdCluster } from "../support/etcd_cluster.ts";
import { atExit, scratchFolder, until } from "../support/processes.ts";
import { etcdBinary } from "../support/servers.ts";

const USAGE = `node test/bench/etcd_members.ts [--etcd PATH] [--jobs N] [--rounds N]
  --etcd PATH  the binary; default this machine's own
  --jobs N     during each fault; default 5
  --rounds N   of all faults; default 1
`;

const { values } = parseArgs({
  options: {
    etcd: { type: "string" },
    jobs: { type: "string", default: "5" },
    rounds: { type: "string", default: "1" },
    help: { type: "boolean", default: false },
  },
});

const JOBS = Number(values.jobs);
const FAULTS: MemberFault[] = ["killed", "frozen", "cut"];

async function runJob(client: Client): Promise<number> {
  const startMs = performance.now();
  const request = { mapper: "slow.sh", reducer: "identity", data: "lines", m_num: 4, r_num: 1 };
  const { id } = await client.json<{ id: string }>("/request", {
    method: "POST",
    headers: { prefer: "respond-async" },
    body: JSON.stringify(request),
  });
  await until(
    `the end of ${id}`,
    async () => {
      const job = await client.json<JobJson>(`/jobs/${id}`).catch(() => undefined);
      if (job?.state === "failed") throw new Error(JSON.stringify(job));
      return job?.state === "succeeded";
    },
    120_000,
  );
  return performance.now() - startMs;
}

async function measure(client: Client, jobs: number): Promise<{ ms: number[]; epochs: number }> {
  const epochs = new Set<number>();
  const look = async () => {
    const ask = () => client.json<{ epoch: number }>("/leader").catch(() => undefined);
    epochs.add((await until("word of the leader", ask)).epoch);
  };
  const ms: number[] = [];
  await look();
  for (let i = 0; i < jobs; i += 1) {
    ms.push(await runJob(client));
    await look();
  }
  return { ms: ms.toSorted((a, b) => a - b), epochs: epochs.size };
}

function say(what: string, { ms, epochs }: { ms: number[]; epochs: number }, wellMs: number): void {
  const median = ms[ms.length >> 1] ?? 0;
  const max = ms.at(-1) ?? 0;
  const times = `median ${median.toFixed(0)} ms (${(median / wellMs).toFixed(2)} x), max ${max.toFixed(0)} ms (${(max / wellMs).toFixed(2)} x)`;
  process.stdout.write(`${what.padEnd(28)} ${times}, ${epochs - 1} terms lost\n`);
}

async function round(etcd: EtcdCluster, client: Client, wellMs: number): Promise<void> {
  for (const fault of FAULTS)
    for (const who of ["follower", "leader"]) {
      const leader = await etcd.raftLeader();
      const member = who === "leader" ? leader : (leader + 1) % etcd.members.length;
      await etcd.break(member, fault);
      say(`etcd's ${who} ${fault}`, await measure(client, JOBS), wellMs);
      await etcd.mend(member, fault);
    }
}

async function main(): Promise<void> {
  await using etcd = await useEtcdCluster(values.etcd ?? etcdBinary());
  await using folder = await scratchFolder("etcd-members");
  const options = { dir: folder.path, port: 0, masters: 2, workers: 2, slotsPerWorker: 2 };
  const cluster = new LocalCluster({ ...options, etcd: etcd.address, say: () => undefined });
  const keep = atExit(() => cluster.kill());
  try {
    const client = new Client(await cluster.start());
    const script = "#!/bin/sh\nsleep 1\ncat\n";
    await writeFile(join(folder.path, "slow.sh"), script);
    for (const [name, text] of [
      ["dfs-scripts/slow.sh", script],
      ["lines/a.txt", "a line\n".repeat(1_000)],
    ])
      await client.fetch(`/storage/${name}`, { method: "PUT", body: text });
    const well = await measure(client, 2 * JOBS);
    const wellMs = well.ms[well.ms.length >> 1] ?? 0;
    say("all well", well, wellMs);
    for (let i = 0; i < Number(values.rounds); i += 1) await round(etcd, client, wellMs);
  } finally {
    await cluster.close();
    keep();
  }
}

if (values.help) process.stdout.write(USAGE);
else await main();
