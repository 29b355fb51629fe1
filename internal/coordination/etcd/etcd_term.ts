import { setTimeout as delay } from "node:timers/promises";
import { castGrpcError, type Etcd3, EtcdLeaseInvalidError } from "etcd3";
import type { Leadership, RecordWrite } from "../../model/coordinator.ts";
import { MrError } from "../../model/errors.ts";
import type { CallOptions } from "./endpoint.ts";
import type { Endpoints } from "./endpoints.ts";

/** Written by every commit of a term: its version numbers them. Created and gone with the leader key. */
export const TERM = "term";
export const LEADER = "leader";
/**
 * A renewal is sent this many times in a lease time. When the member dies that leads etcd, the others
 * are silent for up to 2 s: a term of 3 s lives on if the last renewal before was sent a moment ago,
 * and the first one after follows soon.
 */
const RENEWALS = 15;

const LET_GO_MS = 300;

export interface TermStart {
  leaseId: string;
  epoch: number;
  ttlMs: number;
  /** Monotonic: when the lease was asked for. */
  sentMs: number;
}

/** One term of leadership: whoever created the leader key under its lease. */
export class EtcdTerm implements Leadership {
  readonly epoch: number;
  readonly over: AbortSignal;
  private readonly end = new AbortController();
  private readonly endpoints: Endpoints;
  private readonly prefix: string;
  private readonly leaseId: string;
  private readonly ttlMs: number;
  private readonly timer: NodeJS.Timeout;
  /** C4: counted from when the last renewal that succeeded was sent. */
  private validUntilMs: number;
  /** Version of the term key, as far as known: 1, and 1 more for every commit. */
  private version = 1;
  /** The commit that was sent and whose reply has not come. */
  private unanswered: RecordWrite[] | undefined;

  constructor(endpoints: Endpoints, prefix: string, start: TermStart) {
    this.endpoints = endpoints;
    this.prefix = prefix;
    this.leaseId = start.leaseId;
    this.epoch = start.epoch;
    this.ttlMs = start.ttlMs;
    this.over = this.end.signal;
    this.validUntilMs = start.sentMs + start.ttlMs * 0.7;
    this.timer = setInterval(() => void this.renew(), start.ttlMs / RENEWALS);
  }

  valid(): boolean {
    return !this.over.aborted && performance.now() < this.validUntilMs;
  }

  private async renew(): Promise<void> {
    const sentMs = performance.now();
    try {
      await this.endpoints.callTwo((client, options) => renewOnce(client, this.leaseId, options));
      this.validUntilMs = Math.max(this.validUntilMs, sentMs + this.ttlMs * 0.7);
    } catch (error) {
      if ((error as MrError).cause instanceof EtcdLeaseInvalidError) this.finish();
    }
    if (!this.valid()) this.finish();
  }

  async commit(writes: RecordWrite[]): Promise<void> {
    if (!this.valid()) {
      this.finish();
      throw new MrError("fenced", "the term is over");
    }
    if (!isSame(this.unanswered ?? writes, writes))
      throw new MrError("internal", "a commit of unknown outcome is repeated before any other");
    this.unanswered = writes;
    const result = await this.endpoints.call((client, options) =>
      this.transaction(client, writes).options(options).commit(),
    );
    const found = result.responses[0]?.response_range?.kvs[0];
    // Nobody else writes in this epoch: an earlier try of this very commit landed.
    const landed =
      Number(found?.create_revision) === this.epoch && Number(found?.version) === this.version + 1;
    if (result.succeeded || landed) {
      this.version += 1;
      this.unanswered = undefined;
      return;
    }
    this.finish();
    throw new MrError("fenced", `leader of epoch ${this.epoch} was deposed`);
  }

  private transaction(client: Etcd3, writes: RecordWrite[]) {
    const term = `${this.prefix}${TERM}`;
    return client
      .if(`${this.prefix}${LEADER}`, "Create", "==", this.epoch)
      .and(term, "Version", "==", this.version)
      .then(
        client.put(term).value("").lease(this.leaseId),
        ...writes.map(({ key, value }) => {
          const name = this.prefix + key;
          return value === undefined ? client.delete().key(name) : client.put(name).value(value);
        }),
      )
      .else(client.get(term));
  }

  async resign(): Promise<void> {
    if (this.over.aborted) return;
    clearInterval(this.timer);
    this.end.abort();
    await revoke(this.endpoints, this.leaseId);
  }

  /** Its time is over, but etcd may keep the lease for much longer: nobody else could be elected. */
  private finish(): void {
    if (this.over.aborted) return;
    clearInterval(this.timer);
    this.end.abort();
    void this.letGo();
  }

  private async letGo(): Promise<void> {
    const endMs = performance.now() + 2 * this.ttlMs;
    while (performance.now() < endMs && !(await revoke(this.endpoints, this.leaseId)))
      await delay(LET_GO_MS, undefined, { ref: false });
  }
}

function isSame(a: RecordWrite[], b: RecordWrite[]): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** Lets all go that was created under a lease. @returns whether it is gone; else it runs out. */
export async function revoke(endpoints: Endpoints, leaseId: string): Promise<boolean> {
  const lease = { ID: leaseId };
  return endpoints
    .call((client, options) => client.leaseClient.leaseRevoke(lease, options))
    .then(
      () => true,
      (error: MrError) => error.cause instanceof EtcdLeaseInvalidError,
    );
}

/** @throws EtcdLeaseInvalidError when there is no such lease any more. */
async function renewOnce(client: Etcd3, leaseId: string, options: CallOptions): Promise<void> {
  const stream = await client.leaseClient.leaseKeepAlive(options);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  stream.on("data", ({ TTL }) => resolve(TTL));
  stream.on("error", (error) => reject(castGrpcError(error)));
  stream.on("end", () => reject(new Error("14 UNAVAILABLE: the renewal has no answer")));
  stream.write({ ID: leaseId });
  const ttl = await promise;
  stream.end();
  if (ttl === "0") throw new EtcdLeaseInvalidError(leaseId);
}
