import { lookup } from "node:dns/promises";
import { MrError, messageOf } from "../model/errors.ts";
import type { LeaderDialer, LeaderStream } from "../model/session.ts";
import { askLeader, MasterConnection, WorkerStream } from "./clients.ts";

/**
 * Finds the leader by asking the masters, and dials its own address: behind a
 * balanced name the stream would end at any master, and idle flows get lost.
 */
export class MasterDialer implements LeaderDialer {
  private readonly masters: string[];

  /** @param masters HOST:PORT each; a name may stand for several hosts. */
  constructor(masters: string[]) {
    this.masters = masters;
  }

  async dial(): Promise<LeaderStream> {
    const faults: string[] = [];
    for (const address of await this.addresses(faults)) {
      const asked = new MasterConnection(address);
      try {
        const leader = await askLeader(asked);
        const connection = new MasterConnection(leader.address);
        return new DialedStream(connection);
      } catch (error) {
        faults.push(`${address}: ${messageOf(error)}`);
      } finally {
        asked.close();
      }
    }
    throw new MrError("unavailable", `no master knows the leader (${faults.join("; ")})`);
  }

  private async addresses(faults: string[]): Promise<string[]> {
    const found = new Set<string>();
    for (const master of this.masters) {
      const colon = master.lastIndexOf(":");
      const [host, port] = [master.slice(0, colon), master.slice(colon + 1)];
      try {
        for (const { address, family } of await lookup(host, { all: true }))
          found.add(family === 6 ? `[${address}]:${port}` : `${address}:${port}`);
      } catch (error) {
        faults.push(`${host}: ${messageOf(error)}`);
      }
    }
    // Not always the same one first.
    const list = [...found];
    const turn = Math.floor(Math.random() * list.length);
    return [...list.slice(turn), ...list.slice(0, turn)];
  }
}

/** A stream that owns its connection. */
class DialedStream extends WorkerStream {
  private readonly owned: MasterConnection;

  constructor(connection: MasterConnection) {
    super(connection);
    this.owned = connection;
  }

  override async *messages() {
    try {
      yield* super.messages();
    } finally {
      this.owned.close();
    }
  }
}
