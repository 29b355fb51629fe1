import { lookup } from "node:dns/promises";
import { hostPort, splitHostPort } from "../model/addresses.ts";
import type { Certificates } from "../model/certificates.ts";
import { MrError, messageOf } from "../model/errors.ts";
import type { LeaderDialer, LeaderStream } from "../model/session.ts";
import { askLeader } from "./ask_leader.ts";
import { WorkerStream } from "./worker_stream.ts";

/**
 * Finds the leader by asking the masters, and dials its own address: behind a
 * balanced name the stream would end at any master, and idle flows get lost.
 */
export class MasterDialer implements LeaderDialer {
  private readonly masters: string[];
  private readonly certificates: Certificates | undefined;

  /**
   * @param masters HOST:PORT each; a name may stand for several hosts.
   * @param certificates undefined: without TLS.
   */
  constructor(masters: string[], certificates: Certificates | undefined) {
    this.masters = masters;
    this.certificates = certificates;
  }

  async dial(): Promise<LeaderStream> {
    const faults: string[] = [];
    for (const address of await this.addresses(faults)) {
      try {
        const leader = await askLeader(address, this.certificates);
        return new WorkerStream(leader.address, this.certificates);
      } catch (error) {
        faults.push(`${address}: ${messageOf(error)}`);
      }
    }
    // In the same order whoever was asked first: the same fault is told in the same words.
    const why = faults.toSorted().join("; ");
    throw new MrError("unavailable", `no master knows the leader (${why})`);
  }

  private async addresses(faults: string[]): Promise<string[]> {
    const found = new Set<string>();
    for (const master of this.masters) {
      const parts = splitHostPort(master);
      if (parts === undefined) {
        faults.push(`${master} is no HOST:PORT`);
        continue;
      }
      try {
        for (const { address } of await lookup(parts.host, { all: true }))
          found.add(hostPort(address, parts.port));
      } catch (error) {
        faults.push(`${parts.host}: ${messageOf(error)}`);
      }
    }
    // Not always the same one first.
    const list = [...found];
    const turn = Math.floor(Math.random() * list.length);
    return [...list.slice(turn), ...list.slice(0, turn)];
  }
}
