import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { outputOf, putText, runJob, type TestCluster, useCluster } from "./cluster.ts";

/** A cluster of one worker of one slot, whose leader bears what peers do to it. */
export class HostileCluster implements AsyncDisposable {
  readonly cluster: TestCluster;
  readonly leader: { address: string; epoch: number; pid: number };

  private constructor(cluster: TestCluster, leader: HostileCluster["leader"]) {
    this.cluster = cluster;
    this.leader = leader;
  }

  static async start(): Promise<HostileCluster> {
    const cluster = await useCluster({ workers: 1, slots: 1 });
    const leader = await cluster.client.json<HostileCluster["leader"]>("/leader");
    await putText(cluster.client, "text", "a", "b\na\n");
    return new HostileCluster(cluster, leader);
  }

  /** Of the leader. */
  memoryMb(): number {
    const status = readFileSync(`/proc/${this.leader.pid}/status`, "latin1");
    return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024;
  }

  /** It leads in the same term, and runs a job. */
  async staysAsItWas(): Promise<void> {
    const { client } = this.cluster;
    const { epoch } = await client.json<{ epoch: number }>("/leader");
    assert.equal(epoch, this.leader.epoch, "the term was lost");
    const job = await runJob(client, { mapper: "cat", reducer: "cat", data: "text" });
    assert.equal(job.state, "succeeded");
    assert.equal(String(await outputOf(client, job.id)), "a\t\nb\t\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
  }
}
