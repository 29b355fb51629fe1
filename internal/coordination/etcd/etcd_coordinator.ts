import { setTimeout as delay } from "node:timers/promises";
import { ConstantBackoff, noop } from "cockatiel";
import {
  Etcd3,
  EtcdLeaseInvalidError,
  type IOptions,
  type IRangeResponse,
  type Lease,
} from "etcd3";
import type { Certificates } from "../../model/certificates.ts";
import type {
  Coordinator,
  LeaderInfo,
  LeaderRecord,
  Leadership,
  RecordWrite,
} from "../../model/coordinator.ts";
import { MrError, messageOf } from "../../model/errors.ts";

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
}

const REQUEST_MS = 2_000;
/** A page of a listing: etcd counts all keys behind it each time, so few pages are many times faster. */
const PAGE_KEYS_MIN = 1_000;
const PAGE_KEYS_MAX = 16_000;
const PAGE_BYTES = 4 * 1024 * 1024;
const LEADER = "leader";
/** Written by every commit of a term: its version numbers them. Created and gone with the leader key. */
const TERM = "term";

/**
 * The coordinator of a cluster. etcd3's own Election is not used: its `lost`
 * comes up to two lease times late. Here the leader is whoever created the
 * leader key under its lease; that key's create revision is the epoch, and every
 * write is conditional on it. It is conditional on the number of commits too, so
 * that a request given up for lost, which the network delivers late, changes nothing.
 */
export class EtcdCoordinator implements Coordinator {
  private readonly prefix: string;
  private readonly ttlSeconds: number;
  private client: Etcd3;
  /** With certificates of before; a term that began with one stays with it. */
  private retired: Etcd3[] = [];

  constructor(options: EtcdOptions) {
    this.prefix = options.prefix ?? "mr/";
    this.ttlSeconds = Math.max(1, Math.ceil(options.ttlMs / 1000));
    this.client = new Etcd3(clientOptions(options));
    options.certificates?.onChange(() => {
      this.retired.push(this.client);
      this.client = new Etcd3(clientOptions(options));
    });
  }

  async campaign(candidate: LeaderInfo, signal: AbortSignal): Promise<Leadership> {
    this.closeRetired();
    let wake = () => {};
    using _watch = this.watchLeader(() => wake());
    while (true) {
      if (signal.aborted) throw new MrError("aborted", "the campaign was called off");
      const term = await this.tryElect(candidate).catch(() => undefined);
      if (term !== undefined) return term;
      const nap = new AbortController();
      wake = () => nap.abort();
      // The watch is a hint only: look again every so often.
      await delay(500, undefined, { signal: AbortSignal.any([signal, nap.signal]) }).catch(
        () => undefined,
      );
    }
  }

  private async tryElect(candidate: LeaderInfo): Promise<Leadership | undefined> {
    if ((await this.leader()) !== undefined) return undefined;
    const lease = this.client.lease(this.ttlSeconds, { autoKeepAlive: false });
    // A lease of one try, told apart from a twin's by its id: a lost reply may hide our success.
    const sentMs = performance.now();
    const id = await lease.grant();
    try {
      await this.client
        .if(this.at(LEADER), "Create", "==", 0)
        .then(
          this.client
            .put(this.at(LEADER))
            .value(JSON.stringify({ ...candidate, lease: id }))
            .lease(id),
          this.client.put(this.at(TERM)).value("").lease(id),
        )
        .commit();
      const kv = await this.leaderKv();
      if (kv !== undefined && (JSON.parse(kv.value) as { lease?: string }).lease === id)
        return new EtcdTerm(
          this.client,
          this.prefix,
          { lease, id },
          kv.epoch,
          this.ttlSeconds * 1000,
          sentMs,
        );
    } catch (error) {
      await lease.revoke().catch(() => undefined);
      throw error;
    }
    await lease.revoke().catch(() => undefined);
    return undefined;
  }

  private async leaderKv(): Promise<{ value: string; epoch: number } | undefined> {
    const response = await guard(() => this.client.get(this.at(LEADER)).exec());
    const kv = response.kvs[0];
    if (kv === undefined) return undefined;
    return { value: kv.value.toString(), epoch: Number(kv.create_revision) };
  }

  async leader(): Promise<LeaderRecord | undefined> {
    const kv = await this.leaderKv();
    if (kv === undefined) return undefined;
    const { id, address, pid } = JSON.parse(kv.value) as LeaderInfo;
    return { id, address, pid, epoch: kv.epoch };
  }

  async *list(prefix: string): AsyncIterable<{ key: string; value: string }> {
    const start = this.at(prefix);
    const end = rangeEnd(start);
    // All pages are read at the revision of the first. They come in key order; asked to sort, etcd
    // would read all that is left for each of them.
    const page = (from: string, limit: number, revision?: string): Promise<IRangeResponse> => {
      let query = this.client.getAll().inRange({ start: from, end }).limit(limit);
      if (revision !== undefined) query = query.revision(revision);
      return guard(() => query.exec());
    };
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
    let closed = false;
    const watching = this.client
      .watch()
      .key(this.at(LEADER))
      .create()
      .then(async (watcher) => {
        if (closed) await watcher.cancel();
        watcher.on("data", hint);
        watcher.on("error", () => undefined);
        return watcher;
      })
      .catch(() => undefined);
    return {
      [Symbol.dispose]: () => {
        closed = true;
        watching.then((watcher) => watcher?.cancel()).catch(() => undefined);
      },
    };
  }

  async close(): Promise<void> {
    this.closeRetired();
    this.client.close();
  }

  private closeRetired(): void {
    for (const client of this.retired.splice(0)) client.close();
  }

  private at(key: string): string {
    return this.prefix + key;
  }
}

class EtcdTerm implements Leadership {
  readonly epoch: number;
  readonly over: AbortSignal;
  private readonly end = new AbortController();
  private readonly client: Etcd3;
  private readonly prefix: string;
  private readonly lease: Lease;
  private readonly leaseId: string;
  private readonly ttlMs: number;
  private readonly timer: NodeJS.Timeout;
  /** C4: counted from when the last renewal that succeeded was sent. */
  private validUntilMs: number;
  /** Version of the term key, as far as known: 1, and 1 more for every commit. */
  private version = 1;
  /** The commit that was sent and whose reply has not come. */
  private unanswered: RecordWrite[] | undefined;

  constructor(
    client: Etcd3,
    prefix: string,
    { lease, id }: { lease: Lease; id: string },
    epoch: number,
    ttlMs: number,
    sentMs: number,
  ) {
    this.client = client;
    this.prefix = prefix;
    this.lease = lease;
    this.leaseId = id;
    this.epoch = epoch;
    this.ttlMs = ttlMs;
    this.over = this.end.signal;
    this.validUntilMs = sentMs + ttlMs * 0.7;
    this.timer = setInterval(() => void this.renew(), ttlMs / 5);
  }

  valid(): boolean {
    return !this.over.aborted && performance.now() < this.validUntilMs;
  }

  private async renew(): Promise<void> {
    const sentMs = performance.now();
    try {
      await this.lease.keepaliveOnce({ deadline: Date.now() + REQUEST_MS });
      this.validUntilMs = Math.max(this.validUntilMs, sentMs + this.ttlMs * 0.7);
    } catch (error) {
      if (error instanceof EtcdLeaseInvalidError) this.finish();
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
    const term = `${this.prefix}${TERM}`;
    const result = await guard(() =>
      this.client
        .if(`${this.prefix}${LEADER}`, "Create", "==", this.epoch)
        .and(term, "Version", "==", this.version)
        .then(
          this.client.put(term).value("").lease(this.leaseId),
          ...writes.map((write) => this.operation(write)),
        )
        .else(this.client.get(term))
        .commit(),
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

  private operation({ key, value }: RecordWrite) {
    const name = this.prefix + key;
    return value === undefined
      ? this.client.delete().key(name)
      : this.client.put(name).value(value);
  }

  async resign(): Promise<void> {
    if (this.over.aborted) return;
    this.finish();
    await this.lease.revoke().catch(() => undefined);
  }

  private finish(): void {
    clearInterval(this.timer);
    this.end.abort();
  }
}

function isSame(a: RecordWrite[], b: RecordWrite[]): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** The library's defaults have no deadline, and a breaker that blocks all calls for 5 s. */
function clientOptions({ address, user, password, certificates }: EtcdOptions): IOptions {
  const { ca, cert, key } = certificates?.current() ?? {};
  return {
    hosts: address.split(",").map((host) => host.trim()),
    ...(password !== undefined && { auth: { username: user ?? "root", password } }),
    ...(ca !== undefined && {
      credentials: {
        rootCertificate: ca,
        ...(cert !== undefined && key !== undefined && { certChain: cert, privateKey: key }),
      },
    }),
    dialTimeout: REQUEST_MS,
    faultHandling: {
      host: () => noop,
      global: noop,
      watchBackoff: new ConstantBackoff(300).next(),
    },
    grpcOptions: {
      "grpc.keepalive_time_ms": 2_000,
      "grpc.keepalive_timeout_ms": 1_000,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1_000,
      "grpc.max_receive_message_length": -1,
    },
    defaultCallOptions: (context) =>
      context.isStream ? {} : { deadline: Date.now() + REQUEST_MS },
  };
}

async function guard<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    // What etcd will refuse again must not be repeated for ever.
    const final = /INVALID_ARGUMENT|request is too large|too many operations/.test(
      messageOf(cause),
    );
    throw new MrError(final ? "internal" : "unavailable", `etcd: ${messageOf(cause)}`, { cause });
  }
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
