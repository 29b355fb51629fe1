import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { IRangeResponse } from "etcd3";
import type { Certificates } from "../../model/certificates.ts";
import type { Coordinator, LeaderInfo, LeaderRecord, Leadership } from "../../model/coordinator.ts";
import { MrError, messageOf } from "../../model/errors.ts";
import type { Logger } from "../../model/logger.ts";
import { Endpoints } from "./endpoints.ts";
import { EtcdTerm, LEADER, revoke, TERM } from "./etcd_term.ts";
import { KeyWatch } from "./leader_watch.ts";

export interface EtcdOptions {
  /** Comma-separated, e.g. http://etcd-0:2379. */
  address: string;
  /** Undefined: without authentication. */
  password?: string | undefined;
  /** Default `root`. */
  user?: string;
  /** For addresses with https; undefined: the system's authorities are trusted. */
  certificates?: Certificates | undefined;
  prefix?: string;
  /** Whole seconds for etcd: rounded up. */
  ttlMs: number;
  /** Is told of members that fail, and why it cannot be known who leads. */
  logger?: Logger;
}

/** A page of a listing: etcd counts all keys behind it each time, so few pages are many times faster. */
const PAGE_KEYS_MIN = 1_000;
const PAGE_KEYS_MAX = 16_000;
const PAGE_BYTES = 4 * 1024 * 1024;
/** A page may take longer than what else is asked. */
const PAGE_HEDGE_MS = 1_000;
/** The watch is a hint only: who campaigns looks again every so often. */
const LOOK_MS = 500;
/** The same trouble is told again after so long. */
const TELL_AGAIN_MS = 30_000;

/**
 * The coordinator of a cluster. etcd3's own Election is not used: its `lost`
 * comes up to two lease times late. Here the leader is whoever created the
 * leader key under its lease; that key's create revision is the epoch, and every
 * write is conditional on it. It is conditional on the number of commits too, so
 * that a request given up for lost, which the network delivers late, changes nothing.
 */
export class EtcdCoordinator implements Coordinator {
  private readonly options: EtcdOptions;
  private readonly prefix: string;
  private readonly ttlSeconds: number;
  private endpoints: Endpoints;
  /** With certificates of before; a term that began with one stays with it. */
  private retired: Endpoints[] = [];
  private trouble: { message: string; atMs: number } | undefined;

  constructor(options: EtcdOptions) {
    this.options = options;
    this.prefix = options.prefix ?? "mr/";
    this.ttlSeconds = Math.max(1, Math.ceil(options.ttlMs / 1000));
    this.endpoints = this.connect();
    options.certificates?.onChange(() => {
      this.retired.push(this.endpoints);
      this.endpoints = this.connect();
    });
  }

  private connect(): Endpoints {
    const { address, user = "root", password, certificates, logger } = this.options;
    return new Endpoints({
      ...{ address, user, password, logger, prefix: this.prefix },
      pem: certificates?.current(),
      probe: (client, options) => client.get(this.at(LEADER)).options(options).exec(),
    });
  }

  async campaign(candidate: LeaderInfo, signal: AbortSignal): Promise<Leadership> {
    this.closeRetired();
    let wake = () => {};
    using _watch = this.watchLeader(() => wake());
    while (true) {
      if (signal.aborted) throw new MrError("aborted", "the campaign was called off");
      try {
        const term = await this.tryElect(candidate);
        if (term !== undefined) return term;
      } catch (error) {
        this.tell(error);
      }
      const nap = new AbortController();
      wake = () => nap.abort();
      await delay(LOOK_MS, undefined, { signal: AbortSignal.any([signal, nap.signal]) }).catch(
        () => undefined,
      );
    }
  }

  /** Every try fails alike for as long as the trouble lasts. */
  private tell(error: unknown): void {
    const message = messageOf(error);
    const atMs = performance.now();
    const { trouble } = this;
    if (trouble?.message === message && atMs - trouble.atMs < TELL_AGAIN_MS) return;
    this.trouble = { message, atMs };
    this.options.logger?.warn({ error: message }, "etcd does not tell who leads");
  }

  private async tryElect(candidate: LeaderInfo): Promise<Leadership | undefined> {
    if ((await this.leaderKv(this.endpoints)) !== undefined) return undefined;
    const { endpoints, ttlSeconds } = this;
    const sentMs = performance.now();
    const leaseId = await grant(endpoints, ttlSeconds);
    try {
      await endpoints.call((client, options) =>
        client
          .if(this.at(LEADER), "Create", "==", 0)
          .then(
            client
              .put(this.at(LEADER))
              .value(JSON.stringify({ ...candidate, lease: leaseId }))
              .lease(leaseId),
            client.put(this.at(TERM)).value("").lease(leaseId),
          )
          .options(options)
          .commit(),
      );
      // A lease of one try, told apart from a twin's by its id: a lost reply may hide our success.
      const kv = await this.leaderKv(endpoints);
      if (kv !== undefined && (JSON.parse(kv.value) as { lease?: string }).lease === leaseId) {
        const ttlMs = ttlSeconds * 1000;
        return new EtcdTerm(endpoints, this.prefix, { leaseId, epoch: kv.epoch, ttlMs, sentMs });
      }
    } catch (error) {
      await revoke(endpoints, leaseId);
      throw error;
    }
    await revoke(endpoints, leaseId);
    return undefined;
  }

  private async leaderKv(
    endpoints: Endpoints,
  ): Promise<{ value: string; epoch: number } | undefined> {
    const response = await endpoints.call((client, options) =>
      client.get(this.at(LEADER)).options(options).exec(),
    );
    const kv = response.kvs[0];
    if (kv === undefined) return undefined;
    return { value: kv.value.toString(), epoch: Number(kv.create_revision) };
  }

  async leader(): Promise<LeaderRecord | undefined> {
    const kv = await this.leaderKv(this.endpoints).catch((error: unknown) => {
      this.tell(error);
      throw error;
    });
    if (kv === undefined) return undefined;
    const { id, address, pid } = JSON.parse(kv.value) as LeaderInfo;
    return { id, address, pid, epoch: kv.epoch };
  }

  async *list(prefix: string): AsyncIterable<{ key: string; value: string }> {
    const start = this.at(prefix);
    const end = rangeEnd(start);
    // All pages are read at the revision of the first. They come in key order; asked to sort, etcd
    // would read all that is left for each of them.
    const page = (from: string, limit: number, revision?: string): Promise<IRangeResponse> =>
      this.endpoints.call((client, options) => {
        const query = client.getAll().inRange({ start: from, end }).limit(limit).options(options);
        return (revision === undefined ? query : query.revision(revision)).exec();
      }, PAGE_HEDGE_MS);
    let limit = PAGE_KEYS_MIN;
    let next: Promise<IRangeResponse> | undefined = page(start, limit);
    let revision: string | undefined;
    while (next !== undefined) {
      const { header, kvs, more }: IRangeResponse = await next;
      revision ??= header.revision;
      const last = kvs.at(-1);
      // The next page is on its way while this one is looked at.
      limit = nextLimit(limit, kvs);
      next =
        more && last !== undefined ? page(`${last.key.toString()}\0`, limit, revision) : undefined;
      next?.catch(() => undefined);
      for (const { key, value } of kvs)
        yield { key: key.toString().slice(this.prefix.length), value: value.toString() };
    }
  }

  watchLeader(hint: () => void): Disposable {
    return new KeyWatch(this.endpoints, this.at(LEADER), hint);
  }

  async close(): Promise<void> {
    this.closeRetired();
    this.endpoints.close();
  }

  private closeRetired(): void {
    for (const endpoints of this.retired.splice(0)) endpoints.close();
  }

  private at(key: string): string {
    return this.prefix + key;
  }
}

/** The lease's id is ours to choose: a request that goes to two members makes one lease. */
async function grant(endpoints: Endpoints, ttlSeconds: number): Promise<string> {
  const id = randomBytes(8).readBigUInt64BE() >> 1n || 1n;
  const lease = { ID: String(id), TTL: ttlSeconds };
  await endpoints.call((client, options) =>
    client.leaseClient.leaseGrant(lease, options).then(
      () => undefined,
      (error) => {
        if (!/lease already exists/.test(messageOf(error))) throw error;
      },
    ),
  );
  return lease.ID;
}

/** As many keys as come to a page's bytes, if they go on as they are; not many more than before, if they do not. */
function nextLimit(limit: number, kvs: IRangeResponse["kvs"]): number {
  let bytes = 0;
  for (const { key, value } of kvs) bytes += key.length + value.length;
  const fitting = Math.floor(PAGE_BYTES / Math.max(1, bytes / Math.max(1, kvs.length)));
  return Math.max(PAGE_KEYS_MIN, Math.min(PAGE_KEYS_MAX, 4 * limit, fitting));
}

/** The first key after all keys with this prefix. */
function rangeEnd(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1] = (end[end.length - 1] ?? 0) + 1;
  return end;
}
