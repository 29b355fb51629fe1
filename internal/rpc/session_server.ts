import type { Http2ServerRequest, Http2ServerResponse, ServerHttp2Stream } from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { MrError } from "../model/errors.ts";
import type { WorkerListener, WorkerSessions } from "../model/session.ts";
import { ByteBudget, type ByteShare } from "./byte_budget.ts";
import { toConnectError } from "./errors.ts";
import {
  type SessionRequest,
  SessionRequestSchema,
  WorkerService,
} from "./gen/mapreduce/v1/worker_pb.ts";
import { FrameReader, FrameWriter, GRPC_TYPE } from "./grpc_frames.ts";
import { encodeMasterMessage } from "./message_encoding.ts";
import { hasMoreFields } from "./message_shape.ts";
import { fieldsMax, workerMessageFromWire } from "./session_conversions.ts";

export const SESSION_PATH = `/${WorkerService.typeName}/${WorkerService.method.session.name}`;
export const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
/** Of what a worker says: a heartbeat of as many attempts as there may be is 1.5 MB. */
export const WORKER_MESSAGE_BYTES_MAX = 2 * 1024 * 1024;
/** Of all sessions together: halves of messages, and what is not read at the other end. */
const HELD_BYTES_MAX = 64 * 1024 * 1024;
/** Beside that, what each may have for the asking: most messages are short, and come whole. */
const INCOMING_FREE_BYTES = 16 * 1024;
const OUTGOING_FREE_BYTES = 256 * 1024;
const SESSIONS_MAX = 20_000;
/** A worker has a connection of its own; a client of another make may have some share one. */
const PER_CONNECTION_MAX = 16;
/** In which a worker says hello, in milliseconds. */
const HELLO_MS = 10_000;
/** A message that has begun is to end in this time, in milliseconds. */
const MESSAGE_MS = 15_000;

/** The sessions of workers, which speak plain gRPC. */
export class SessionServer {
  private readonly sessions: WorkerSessions;
  private readonly open = new Set<ServedSession>();
  private readonly ofConnection = new WeakMap<object, number>();
  private readonly incoming = new ByteBudget(HELD_BYTES_MAX);
  private readonly outgoing = new ByteBudget(HELD_BYTES_MAX);

  constructor(sessions: WorkerSessions) {
    this.sessions = sessions;
  }

  /**
   * Whatever the client's deadline may be: it ends the stream itself.
   * @returns false: somebody else is to answer this request.
   */
  take({ headers, stream }: Http2ServerRequest, response: Http2ServerResponse): boolean {
    if (headers[":path"]?.split("?", 1)[0] !== SESSION_PATH) return false;
    const isPlain =
      headers[":method"] === "POST" &&
      /^application\/grpc(\+proto)?$/.test(headers["content-type"] ?? "");
    if (!isPlain) {
      stream.on("error", () => undefined);
      stream.once("wantTrailers", () => setImmediate(() => stream.close()));
      response.writeHead(415, { "accept-post": GRPC_TYPE }).end();
      return true;
    }
    const shares = {
      incoming: this.incoming.open(INCOMING_FREE_BYTES),
      outgoing: this.outgoing.open(OUTGOING_FREE_BYTES),
    };
    const session = new ServedSession(stream, response, shares);
    const why = this.enter(session, stream);
    if (why === undefined) session.begin(this.sessions);
    else session.end(new MrError("too_many", why));
    return true;
  }

  /** @returns why there is no room for it, if there is none. */
  private enter(session: ServedSession, stream: ServerHttp2Stream): string | undefined {
    if (this.open.size >= SESSIONS_MAX) return `${SESSIONS_MAX} workers are connected`;
    const connection = stream.session ?? stream;
    const beside = this.ofConnection.get(connection) ?? 0;
    if (beside >= PER_CONNECTION_MAX)
      return `session: ${PER_CONNECTION_MAX} workers are on this connection`;
    this.ofConnection.set(connection, beside + 1);
    this.open.add(session);
    stream.once("close", () => {
      this.open.delete(session);
      this.ofConnection.set(connection, (this.ofConnection.get(connection) ?? 1) - 1);
    });
    return undefined;
  }

  close(): void {
    for (const session of this.open) session.end();
  }
}

interface Shares {
  incoming: ByteShare;
  outgoing: ByteShare;
}

class ServedSession {
  private readonly stream: ServerHttp2Stream;
  private readonly response: Http2ServerResponse;
  private readonly writer: FrameWriter;
  private readonly shares: Shares;
  private readonly reader: FrameReader;
  private listener: WorkerListener | undefined;
  private patience: NodeJS.Timeout | undefined;
  private greeting: NodeJS.Timeout | undefined;
  /** Tasks that the worker runs at a time; 0: it has not said hello. */
  private slots = 0;

  constructor(stream: ServerHttp2Stream, response: Http2ServerResponse, shares: Shares) {
    this.stream = stream;
    this.response = response;
    this.shares = shares;
    this.writer = new FrameWriter(stream);
    this.reader = new FrameReader(WORKER_MESSAGE_BYTES_MAX, shares.incoming);
    stream.on("error", () => undefined);
    stream.once("close", () => this.gone());
    response.writeHead(200, { "content-type": GRPC_TYPE });
  }

  begin(sessions: WorkerSessions): void {
    const { stream } = this;
    try {
      this.listener = sessions.attach({
        send: (message) => this.send(encodeMasterMessage(message)),
        close: () => this.end(),
      });
    } catch (error) {
      this.end(error);
      return;
    }
    const silent = () => this.end(new MrError("invalid", "session: nobody says hello"));
    this.greeting = setTimeout(silent, HELLO_MS);
    stream.on("data", (chunk: Buffer) => {
      try {
        for (const bytes of this.reader.read(chunk)) this.hear(bytes);
      } catch (error) {
        this.end(error);
      }
      this.waitForRest();
    });
    stream.once("end", () => this.end());
  }

  private hear(bytes: Buffer): void {
    const message = workerMessageFromWire(this.decode(bytes), this.slots);
    if (message?.kind === "hello") {
      clearTimeout(this.greeting);
      this.slots = message.worker.slots * message.worker.reducesPerSlot;
    }
    if (message !== undefined) this.listener?.hear(message);
  }

  private decode(bytes: Buffer): SessionRequest {
    const most = fieldsMax(this.slots);
    try {
      if (!hasMoreFields(SessionRequestSchema, bytes, most))
        return fromBinary(SessionRequestSchema, bytes);
    } catch (cause) {
      throw new MrError("invalid", "session: no message", { cause });
    }
    throw new MrError("invalid", "session: a message of too many parts");
  }

  /** Most messages come whole: then there is nothing to wait for. */
  private waitForRest(): void {
    if (this.reader.isWaiting === (this.patience !== undefined)) return;
    clearTimeout(this.patience);
    const late = () => this.end(new MrError("invalid", "session: a message does not end"));
    this.patience = this.reader.isWaiting ? setTimeout(late, MESSAGE_MS) : undefined;
  }

  /** To a worker that reads: what is not read is held here. */
  private send(message: Uint8Array): void {
    this.writer.write(message);
    if (!this.shares.outgoing.holds(this.stream.writableLength))
      this.end(new MrError("too_many", "session: what was said is not read"));
  }

  private gone(): void {
    this.listener?.gone();
    this.listener = undefined;
    clearTimeout(this.patience);
    clearTimeout(this.greeting);
    for (const share of Object.values(this.shares)) share[Symbol.dispose]();
  }

  /** After what was sent; with an error, saying so. */
  end(error?: unknown): void {
    this.gone();
    this.writer.flush();
    if (this.stream.destroyed || this.response.writableEnded) return;
    const trailers: Record<string, string> = { "grpc-status": "0" };
    if (error !== undefined) {
      const { code, rawMessage } = toConnectError(error);
      trailers["grpc-status"] = String(code);
      trailers["grpc-message"] = encodeURIComponent(rawMessage);
    }
    this.response.addTrailers(trailers);
    // A client that goes on talking is not waited for, once it has been told.
    this.stream.once("wantTrailers", () => setImmediate(() => this.stream.close()));
    this.response.end();
  }
}
