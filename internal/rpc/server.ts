import {
  createServer as createHttp1,
  type Server as Http1Server,
  type IncomingHttpHeaders,
} from "node:http";
import {
  createServer as createHttp2,
  createSecureServer,
  type Http2SecureServer,
  type Http2Server,
  Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import { createServer as createNet, type Server, type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { Certificates } from "../model/certificates.ts";
import { messageOf } from "../model/errors.ts";
import { LIMIT } from "../model/limits.ts";
import type { Logger } from "../model/logger.ts";
import { RequestBodies } from "./request_bodies.ts";
import type { SessionServer } from "./session_server.ts";
import { admits, type Peer, peerOf, refusalOf } from "./tls.ts";

/** The first bytes of every HTTP/2 connection without TLS. */
const HTTP2_PREFACE = "PRI * HTTP/2";
/** The first byte of every TLS connection: a handshake record. */
const TLS_HANDSHAKE = 0x16;
/** A proxy follows so many jobs on one connection. */
const HTTP2_OPTIONS = { settings: { maxConcurrentStreams: 2_048 } };
const CONNECTIONS_MAX = 30_000;
/** Probes are few, and short. */
const STRANGERS_MAX = 128;
/** In which a connection says what it wants, in milliseconds. */
const PATIENCE_MS = 10_000;
const PATH_CHARS_MAX = 200;

/** What stands for the host in the URL of a request. */
const NAME = "master";

export interface RpcServerOptions {
  routes: (router: ConnectRouter) => void;
  /** Served before all else, and without Connect. */
  sessions: SessionServer;
  /** How often an HTTP/2 peer is asked for a sign of life, and how long it may take, in ms. */
  pingIntervalMs: number;
  pingTimeoutMs: number;
  /** Undefined: without TLS, whoever reaches the port is let in. */
  certificates: Certificates | undefined;
  logger: Logger;
}

type Handler = ReturnType<typeof connectNodeAdapter>;

/**
 * Connect makes a URL of the name that it is asked by, and throws where it cannot: a request with
 * another one, or none, or the IPv6 address that Node's own client sends without its brackets, would
 * end the process. Nothing here depends on that name.
 */
function named(request: Parameters<Handler>[0]): Parameters<Handler>[0] {
  if (request instanceof Http2ServerRequest)
    return Object.defineProperty(request, "authority", { value: NAME });
  request.headers.host = NAME;
  return request;
}

/** One port for HTTP/1.1 (curl, JSON) and HTTP/2 (gRPC), with and without TLS: the first bytes decide. */
export class RpcServer {
  private readonly options: RpcServerOptions;
  private readonly shutdown = new AbortController();
  private readonly net: Server;
  private readonly http1: Http1Server;
  private readonly http2: Http2Server;
  private readonly secure: Http2SecureServer | undefined;
  private readonly sockets = new Set<Socket>();
  /** Where there are certificates: connections that have shown none, the oldest first. */
  private readonly strangers = new Set<Socket>();
  private readonly sessions = new Set<ServerHttp2Session>();
  /** Of connections whose first request is waited for. */
  private readonly awaited = new WeakMap<object, NodeJS.Timeout>();

  constructor(options: RpcServerOptions) {
    this.options = options;
    const connect = connectNodeAdapter({
      routes: options.routes,
      shutdownSignal: this.shutdown.signal,
      readMaxBytes: LIMIT.submitBytes,
      // A little may unpack to very much.
      acceptCompression: [],
      // As in the binary form, and at the proxy: what is misspelt is not what was meant.
      jsonOptions: { ignoreUnknownFields: false },
    });
    const bodies = new RequestBodies();
    const handler = this.guarded((request, response) => {
      const isSession =
        request instanceof Http2ServerRequest &&
        options.sessions.take(request, response as Http2ServerResponse);
      if (isSession) return;
      bodies.bound(request, response);
      connect(named(request), response);
    });
    this.http1 = createHttp1(handler);
    this.http2 = createHttp2(HTTP2_OPTIONS, handler);
    this.secure = options.certificates && this.secured(options.certificates, handler);
    for (const server of [this.http2, this.secure]) {
      server?.on("session", (session) => this.supervise(session));
      server?.on("sessionError", () => undefined);
    }
    this.net = createNet((socket) => this.dispatch(socket));
  }

  private secured(certificates: Certificates, handler: Handler): Http2SecureServer {
    const server = createSecureServer(
      // A bad certificate counts as none: cut off in the handshake, its owner would not learn why.
      {
        ...HTTP2_OPTIONS,
        ...certificates.current(),
        allowHTTP1: true,
        requestCert: true,
        rejectUnauthorized: false,
      },
      handler,
    );
    server.on("secureConnection", (socket: TLSSocket) => {
      if (!socket.authorized) this.admitStranger(socket);
    });
    certificates.onChange(() => server.setSecureContext(certificates.current()));
    server.on("tlsClientError", (error, socket) => {
      const peer = socket.remoteAddress ?? "";
      this.options.logger.warn({ peer, error: messageOf(error) }, "a peer was refused");
    });
    return server;
  }

  /** No web page is answered; with certificates each part may ask only what its role is there for. */
  private guarded(handler: Handler): Handler {
    const peers = new WeakMap<object, Peer>();
    return (request, response) => {
      clearTimeout(this.awaited.get(request.socket));
      if (isFromPage(request.headers)) {
        request.resume();
        return refuse(response, 403, "web pages are not answered here");
      }
      if (isFramedJson(request.headers)) {
        request.resume();
        return refuse(response, 415, "gRPC is spoken in the binary form here");
      }
      if (this.options.certificates === undefined) return handler(request, response);
      const socket = request.socket as TLSSocket;
      const connection = (request as Http2ServerRequest).stream?.session ?? socket;
      if (!peers.has(connection)) peers.set(connection, peerOf(socket));
      const peer = peers.get(connection);
      if (admits(request.url ?? "", peer)) return handler(request, response);
      const why = refusalOf(socket, peer);
      const path = (request.url ?? "").slice(0, PATH_CHARS_MAX);
      const from = { peer: socket.remoteAddress ?? "", path };
      this.options.logger.warn({ ...from, error: why }, "a peer was refused");
      request.resume();
      refuse(response, 403, why);
    };
  }

  async listen(host: string, port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.net.once("error", reject);
      this.net.listen(port, host, resolve);
    });
    const address = this.net.address();
    return address !== null && typeof address === "object" ? address.port : port;
  }

  /** Beyond some, the oldest has to go: a probe that comes now is answered all the same. */
  private admitStranger(socket: Socket): void {
    this.strangers.add(socket);
    socket.once("close", () => this.strangers.delete(socket));
    const [oldest] = this.strangers;
    if (this.strangers.size > STRANGERS_MAX) oldest?.destroy();
  }

  private dispatch(socket: Socket): void {
    if (this.sockets.size >= CONNECTIONS_MAX) return void socket.destroy();
    this.sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    const patience = setTimeout(() => socket.destroy(), PATIENCE_MS);
    socket.once("close", () => clearTimeout(patience));
    let head: Buffer = Buffer.alloc(0);
    const look = () => {
      const chunk = socket.read() as Buffer | null;
      if (chunk !== null) head = Buffer.concat([head, chunk]);
      const server = this.serverFor(head);
      if (server === undefined) return void socket.once("readable", look);
      socket.unshift(head);
      if (this.secure !== undefined && server !== this.secure) this.admitStranger(socket);
      // Of HTTP/1 a whole request is waited for; HTTP/2 is pinged, TLS has a limit of its own.
      if (server === this.http1) this.awaited.set(socket, patience);
      else clearTimeout(patience);
      server.emit("connection", socket);
      if (server === this.http1) socket.resume();
    };
    socket.once("readable", look);
  }

  /** @returns undefined: what was said so far may be the beginning of more than one thing. */
  private serverFor(head: Buffer) {
    if (head.length === 0) return undefined;
    if (this.secure !== undefined && head[0] === TLS_HANDSHAKE) return this.secure;
    const said = head.subarray(0, HTTP2_PREFACE.length).toString("latin1");
    if (!HTTP2_PREFACE.startsWith(said)) return this.http1;
    return said === HTTP2_PREFACE ? this.http2 : undefined;
  }

  /** A peer that stopped, or was cut off, is noticed by nothing but its silence. */
  private supervise(session: ServerHttp2Session): void {
    this.sessions.add(session);
    let overdue: NodeJS.Timeout | undefined;
    let heardBytes = 0;
    const timer = setInterval(() => {
      if (session.destroyed || overdue !== undefined) return;
      // Whoever has spoken since the last look is alive: most workers, by their heartbeats.
      const { bytesRead } = session.socket;
      const spoke = bytesRead > heardBytes;
      heardBytes = bytesRead;
      if (spoke) return;
      overdue = setTimeout(() => session.destroy(), this.options.pingTimeoutMs);
      const pong = () => {
        clearTimeout(overdue);
        overdue = undefined;
      };
      try {
        session.ping(pong);
      } catch {
        pong();
      }
    }, this.options.pingIntervalMs);
    session.on("error", () => undefined);
    session.on("close", () => {
      this.sessions.delete(session);
      clearInterval(timer);
      clearTimeout(overdue);
    });
  }

  /** Stops listening, lets handlers end (they are told by their signal), then cuts what is left. */
  async close(graceMs = 2_000): Promise<void> {
    const closed = new Promise<void>((resolve) => this.net.close(() => resolve()));
    for (const session of this.sessions) session.close();
    this.http1.closeIdleConnections();
    this.shutdown.abort();
    this.options.sessions.close();
    const cut = setTimeout(() => {
      for (const session of this.sessions) session.destroy();
      for (const socket of this.sockets) socket.destroy();
    }, graceMs);
    await closed;
    clearTimeout(cut);
  }
}

/** A browser says so with whatever a page sends; nobody else does. */
function isFromPage(headers: IncomingHttpHeaders): boolean {
  return headers.origin !== undefined || headers["sec-fetch-site"] !== undefined;
}

/** What is wrong with JSON may be as long as it, and of any characters: no header can say that. */
function isFramedJson(headers: IncomingHttpHeaders): boolean {
  return /^application\/grpc.*json/i.test(headers["content-type"] ?? "");
}

function refuse(response: Parameters<Handler>[1], status: 403 | 415, message: string): void {
  const code = status === 403 ? "permission_denied" : "unimplemented";
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ code, message }));
}
