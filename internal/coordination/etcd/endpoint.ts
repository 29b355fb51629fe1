import { noop } from "cockatiel";
import { Etcd3, type IOptions } from "etcd3";
import type { Pem } from "../../model/certificates.ts";
import { messageOf } from "../../model/errors.ts";
import { isMembersOwn, plainWords } from "./failures.ts";

export interface CallOptions {
  /** Wall clock, in milliseconds. */
  deadline: number;
}

/** What a member is asked to show that it is well again: what all else needs, a majority too. */
export type Probe = (client: Etcd3, options: CallOptions) => Promise<unknown>;

const PROBE_MS = 500;
/** Between probes, twice as long each time. */
const WAIT_MS_MIN = 500;
const WAIT_MS_MAX = 15_000;
/** Who fails again before so long is not trusted again as soon as the last time. */
const RELAPSE_MS = 60_000;

/** One member of etcd: a client of its own, and whether it is to be relied on just now. */
export class Endpoint {
  readonly address: string;
  readonly client: Etcd3;
  private readonly probe: Probe | undefined;
  private readonly turned: (isWell: boolean, why: string) => void;
  private readonly watchers = new Set<() => void>();
  /** Failures since it was well; it is tried in the order of these. */
  failures = 0;
  private waitMs = WAIT_MS_MIN;
  private wellSinceMs = Number.NEGATIVE_INFINITY;
  private timer: NodeJS.Timeout | undefined;
  private closed = false;

  /**
   * @param probe undefined: the only member, which is asked whatever it said before.
   * @param turned is told when it fails, and when it is well again.
   */
  constructor(
    address: string,
    client: Etcd3,
    probe: Probe | undefined,
    turned: (isWell: boolean, why: string) => void,
  ) {
    this.address = address;
    this.client = client;
    this.probe = probe;
    this.turned = turned;
  }

  /** It did what it was asked, and in good time. */
  succeeded(): void {
    if (this.failures === 0) return;
    this.failures = 0;
    this.wellSinceMs = performance.now();
    clearTimeout(this.timer);
    if (this.probe !== undefined) this.turned(true, "");
  }

  failed(why: string): void {
    this.failures += 1;
    if (this.probe === undefined || this.closed || this.failures > 1) return;
    const relapsed = performance.now() - this.wellSinceMs < RELAPSE_MS;
    this.waitMs = relapsed ? Math.min(2 * this.waitMs, WAIT_MS_MAX) : WAIT_MS_MIN;
    this.turned(false, why);
    for (const watcher of [...this.watchers]) watcher();
    this.probeLater(this.probe);
  }

  private probeLater(probe: Probe): void {
    this.timer = setTimeout(async () => {
      const fails = await probe(this.client, { deadline: Date.now() + PROBE_MS }).then(
        () => false,
        isMembersOwn,
      );
      if (this.closed || this.failures === 0) return;
      if (!fails) return this.succeeded();
      this.waitMs = Math.min(2 * this.waitMs, WAIT_MS_MAX);
      this.probeLater(probe);
    }, this.waitMs).unref();
  }

  /** Calls back whenever it fails after it was well. */
  onFailure(watcher: () => void): Disposable {
    this.watchers.add(watcher);
    return { [Symbol.dispose]: () => void this.watchers.delete(watcher) };
  }

  describe(error: unknown): string {
    return `${this.address}: ${plainWords(messageOf(error))}`;
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.client.close();
  }
}

/** @param token is asked with each call. */
export function clientOf(address: string, pem: Pem | undefined, token: () => string | undefined) {
  return new Etcd3({
    hosts: address,
    ...(pem?.ca !== undefined && { credentials: credentialsOf(pem) }),
    // The library's defaults have a breaker that blocks all calls for 5 s.
    faultHandling: { host: () => noop, global: noop },
    grpcOptions: {
      // Of a channel's own: one that is made anew after a time-out shares no dead connection.
      "grpc.use_local_subchannel_pool": 1,
      // etcd ends a connection that asks more often than every 5 s.
      "grpc.keepalive_time_ms": 10_000,
      "grpc.keepalive_timeout_ms": 3_000,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1_000,
      "grpc.max_receive_message_length": -1,
      interceptors: [withToken(token)],
    },
  });
}

interface Status {
  details: string;
}

interface Listener {
  onReceiveStatus(status: Status): void;
}

interface Call {
  start(metadata: { set(key: string, value: string): void }, listener: Listener): void;
}

/**
 * Shows our token with a call. That it is refused is said in other words than etcd's, at which the
 * library would send the same call again and again.
 */
function withToken(token: () => string | undefined) {
  return <O>(options: O, next: (options: O) => Call): Call => {
    const call = next(options);
    const known = token();
    if (known === undefined) return call;
    const start = call.start.bind(call);
    call.start = (metadata, listener) => {
      metadata.set("token", known);
      const end = listener.onReceiveStatus.bind(listener);
      listener.onReceiveStatus = (status) =>
        end({ ...status, details: status.details.replace(/^etcdserver: (?=invalid auth)/, "") });
      start(metadata, listener);
    };
    return call;
  };
}

function credentialsOf({ ca, cert, key }: Pem): NonNullable<IOptions["credentials"]> {
  return {
    rootCertificate: ca,
    ...(cert !== undefined && key !== undefined && { certChain: cert, privateKey: key }),
  };
}
