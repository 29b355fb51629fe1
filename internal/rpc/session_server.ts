import type { Http2ServerRequest, Http2ServerResponse, ServerHttp2Stream } from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { MrError } from "../model/errors.ts";
import type { WorkerListener, WorkerSessions } from "../model/session.ts";
import { ByteBudget, type ByteShare } from "./byte_budget.ts";
import { toConnectError } from "./errors.ts";
import { SessionRequestSchema, WorkerService } from "./gen/mapreduce/v1/worker_pb.ts";
import { FrameReader, FrameWriter, GRPC_TYPE } from "./grpc_frames.ts";
import { encodeMasterMessage } from "./message_encoding.ts";
import { workerMessageFromWire } from "./session_conversions.ts";

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
/** A message that has begun is to end in this time, in milliseconds. */
const MESSAGE_MS = 15_000;

/** The sessions of workers, which speak plain gRPC. */
export class SessionServer {
  private readonly sessions: WorkerSessions;
  private readonly open = new Set<ServedSession>();
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
    const isFull = this.open.size >= SESSIONS_MAX;
    const shares = {
      incoming: this.incoming.open(INCOMING_FREE_BYTES),
      outgoing: this.outgoing.open(OUTGOING_FREE_BYTES),
    };
    const session = new ServedSession(stream, response, shares);
    this.open.add(session);
    stream.once("close", () => this.open.delete(session));
    if (isFull) session.end(new MrError("too_many", `${SESSIONS_MAX} workers are connected`));
    else session.begin(this.sessions);
    return true;
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
    const message = workerMessageFromWire(fromBinary(SessionRequestSchema, bytes));
    if (message !== undefined) this.listener?.hear(message);
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
