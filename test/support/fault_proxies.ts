import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import {
  createServer as createHttp,
  type IncomingMessage,
  request,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/**
 * How a link fails. `cut`: nothing passes, and nobody is told (also one way only);
 * `reset`: connections are torn down and new ones refused; `deaf`: what the client
 * sends arrives, no reply comes back, until the link is mended by tearing it down.
 */
export type LinkFault = "none" | "cut" | "cut-up" | "cut-down" | "reset" | "deaf";

interface Pair {
  client: Socket;
  server: Socket;
  pid: number | undefined;
}

/** A TCP link that can fail, for all who use it or for one process. */
export class FaultyLink implements AsyncDisposable {
  private readonly net = createServer((client) => this.accept(client));
  readonly target: number;
  private readonly pairs = new Set<Pair>();
  private fault: LinkFault = "none";
  private victim: number | undefined;
  delayMs = 0;

  private constructor(target: number) {
    this.target = target;
  }

  /** @param target a port of loopback. @param port its own; 0: any. */
  static async open(target: number, port = 0): Promise<FaultyLink> {
    const link = new FaultyLink(target);
    await new Promise<void>((resolve) => link.net.listen(port, "127.0.0.1", resolve));
    return link;
  }

  get port(): number {
    return (this.net.address() as AddressInfo).port;
  }

  /** @param victim only connections of this process fail. */
  break(fault: LinkFault, victim?: number): void {
    this.fault = fault;
    this.victim = victim;
    for (const pair of this.pairs) this.apply(pair);
  }

  mend(): void {
    if (this.fault === "deaf") for (const pair of this.pairs) tearDown(pair);
    this.break("none");
  }

  private accept(client: Socket): void {
    const server = connect(this.target, "127.0.0.1");
    const pair: Pair = { client, server, pid: undefined };
    this.pairs.add(pair);
    this.pass(client, server);
    this.pass(server, client);
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.pairs.delete(pair);
        tearDown(pair);
      });
    }
    this.apply(pair);
  }

  private pass(from: Socket, to: Socket): void {
    from.on("data", (chunk) => {
      const send = () => {
        if (to.writable && !to.write(chunk) && !from.isPaused()) {
          from.pause();
          to.once("drain", () => this.refresh());
        }
      };
      if (this.delayMs > 0) setTimeout(send, this.delayMs);
      else send();
    });
    from.on("end", () => to.end());
  }

  private refresh(): void {
    for (const pair of this.pairs) this.apply(pair);
  }

  private apply(pair: Pair): void {
    const { client, server } = pair;
    if (this.victim !== undefined) pair.pid ??= ownerOf(client.remotePort ?? 0);
    const hit = this.victim === undefined || pair.pid === this.victim;
    const fault = hit ? this.fault : "none";
    if (fault === "reset") return tearDown(pair);
    const up = fault === "cut" || fault === "cut-up";
    const down = fault === "cut" || fault === "cut-down" || fault === "deaf";
    if (up) client.pause();
    else client.resume();
    if (down) server.pause();
    else server.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pair of this.pairs) tearDown(pair);
    await new Promise((resolve) => this.net.close(resolve));
  }
}

function tearDown({ client, server }: Pair): void {
  if (!client.destroyed) client.resetAndDestroy();
  if (!server.destroyed) server.destroy();
}

/** The process whose socket has this local port. */
function ownerOf(port: number): number | undefined {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const line = readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .map((text) => text.trim().split(/\s+/))
    .find((fields) => fields[1]?.endsWith(`:${hex}`) && fields[9] !== "0");
  if (line === undefined) return undefined;
  const wanted = `socket:[${line[9]}]`;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    if (hasFile(pid, wanted)) return Number(pid);
  return undefined;
}

function hasFile(pid: string, wanted: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`) === wanted;
      } catch {
        return false;
      }
    });
  } catch {
    return false;
  }
}

/**
 * What becomes of one HTTP request. `status`: answered so, not forwarded; `lose-reply`:
 * carried out, and the connection torn down instead of an answer; `break-body`,
 * `stall-body`: the answer stops after so many bytes.
 */
export type HttpFault =
  | { kind: "status"; status: number; code?: string }
  | { kind: "lose-reply" }
  | { kind: "break-body"; bytes: number }
  | { kind: "stall-body"; bytes: number };

/** Stands before an HTTP server and lets chosen requests fail. */
export class FaultyHttp implements AsyncDisposable {
  private readonly server = createHttp((req, res) => this.handle(req, res));
  private readonly target: number;
  /** Asked for every request. */
  rule: (req: IncomingMessage) => HttpFault | undefined = () => undefined;
  requests = 0;

  private constructor(target: number) {
    this.target = target;
    this.server.requestTimeout = 0;
  }

  static async open(target: number): Promise<FaultyHttp> {
    const proxy = new FaultyHttp(target);
    await new Promise<void>((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  private handle(req: IncomingMessage, res: ServerResponse): void {
    this.requests += 1;
    const fault = this.rule(req);
    if (fault?.kind === "status") {
      req.resume();
      req.on("end", () => {
        const { code = "ServerBusy" } = fault;
        res.writeHead(fault.status, { "x-ms-error-code": code, "content-type": "application/xml" });
        const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`;
        res.end(req.method === "HEAD" ? "" : body);
      });
      return;
    }
    const { method, url, headers } = req;
    const options = { host: "127.0.0.1", port: this.target, method, path: url, headers };
    const forwarded = request(options, (answer) => {
      if (fault?.kind === "lose-reply") {
        answer.resume();
        answer.on("end", () => res.destroy());
        return;
      }
      res.writeHead(answer.statusCode ?? 500, answer.rawHeaders);
      if (fault === undefined) answer.pipe(res);
      else breakOff(answer, res, fault);
    });
    forwarded.on("error", () => res.destroy());
    res.on("close", () => forwarded.destroy());
    req.pipe(forwarded);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

function breakOff(
  answer: IncomingMessage,
  res: ServerResponse,
  fault: Extract<HttpFault, { bytes: number }>,
): void {
  let rest = fault.bytes;
  answer.on("data", (chunk: Buffer) => {
    if (rest > 0) res.write(chunk.subarray(0, rest));
    rest -= chunk.length;
    if (rest > 0) return;
    answer.pause();
    // Time for what was written to go out; a stalled one stays as it is.
    if (fault.kind === "break-body") setImmediate(() => res.destroy());
  });
  answer.on("end", () => {
    if (rest > 0) res.end();
  });
}
