/** What is read from outside: /proc, etcd's own figures, and what lies in it. */
import { readFileSync } from "node:fs";

const TICKS_PER_SECOND = 100;

/** Processor time that a process, with all its threads, has taken so far, in milliseconds. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS_PER_SECOND;
}

export function rssBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1_024;
}

/** etcd by its HTTP gateway: the bench needs no client library of its own. */
export class EtcdProbe {
  private readonly address: string;

  constructor(address: string) {
    this.address = address;
  }

  private async range(request: object): Promise<{ kvs: Kv[]; more: boolean }> {
    const body = JSON.stringify(request);
    const response = await fetch(`${this.address}/v3/kv/range`, { method: "POST", body });
    const { kvs = [], more = false } = (await response.json()) as { kvs?: Kv[]; more?: boolean };
    return { kvs, more };
  }

  /** Commits of the present term: each writes the term's key. */
  async commits(): Promise<number> {
    const { kvs } = await this.range({ key: base64("mr/term") });
    return Number(kvs[0]?.version ?? 1) - 1;
  }

  /** Keys and their bytes, values included, by the kind of record. */
  async stored(): Promise<Record<string, { keys: number; bytes: number }>> {
    const kinds: Record<string, { keys: number; bytes: number }> = {};
    let from = "mr/job/";
    while (true) {
      const { kvs, more } = await this.range({
        key: base64(from),
        range_end: base64("mr/job0"),
        limit: 5_000,
      });
      for (const { key, value = "" } of kvs) {
        const name = Buffer.from(key, "base64").toString();
        const kind = name.split("/")[3] ?? "";
        kinds[kind] ??= { keys: 0, bytes: 0 };
        kinds[kind].keys += 1;
        kinds[kind].bytes += name.length + Buffer.byteLength(value, "base64");
        from = `${name}\0`;
      }
      if (!more) return kinds;
    }
  }

  async dbBytes(): Promise<number> {
    const text = await (await fetch(`${this.address}/metrics`)).text();
    return Number(/^etcd_mvcc_db_total_size_in_bytes (\S+)/m.exec(text)?.[1] ?? 0);
  }
}

interface Kv {
  key: string;
  value?: string;
  version?: string;
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}
