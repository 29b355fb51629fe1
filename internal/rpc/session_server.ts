import type { Http2ServerRequest, Http2ServerResponse, ServerHttp2Stream } from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import type { WorkerListener, WorkerSessions } from "../model/session.ts";
import { toConnectError } from "./errors.ts";
import { SessionRequestSchema, WorkerService } from "./gen/mapreduce/v1/worker_pb.ts";
import { FrameReader, FrameWriter, GRPC_TYPE } from "./grpc_frames.ts";
import { encodeMasterMessage } from "./message_encoding.ts";
import { workerMessageFromWire } from "./session_conversions.ts";

export const SESSION_PATH = `/${WorkerService.typeName}/${WorkerService.method.session.name}`;
export const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** The sessions of workers that speak plain gRPC, as all do but a person with a tool. */
export class SessionServer {
  private readonly sessions: WorkerSessions;
  private readonly open = new Set<ServedSession>();

  constructor(sessions: WorkerSessions) {
    this.sessions = sessions;
  }

  /** @returns false: somebody else is to answer this request. */
  take({ headers, stream }: Http2ServerRequest, response: Http2ServerResponse): boolean {
    const isPlain =
      headers[":path"] === SESSION_PATH &&
      /^application\/grpc(\+proto)?$/.test(headers["content-type"] ?? "") &&
      (headers["grpc-encoding"] ?? "identity") === "identity" &&
      headers["grpc-timeout"] === undefined;
    if (!isPlain) return false;
    const session = new ServedSession(stream, response, this.sessions);
    this.open.add(session);
    stream.once("close", () => this.open.delete(session));
    return true;
  }

  close(): void {
    for (const session of this.open) session.end();
  }
}

class ServedSession {
  private readonly stream: ServerHttp2Stream;
  private readonly response: Http2ServerResponse;
  private readonly writer: FrameWriter;
  private listener: WorkerListener | undefined;

  constructor(stream: ServerHttp2Stream, response: Http2ServerResponse, sessions: WorkerSessions) {
    this.stream = stream;
    this.response = response;
    this.writer = new FrameWriter(stream);
    const reader = new FrameReader(MESSAGE_BYTES_MAX);
    stream.on("error", () => undefined);
    stream.once("close", () => this.gone());
    response.writeHead(200, { "content-type": GRPC_TYPE });
    try {
      this.listener = sessions.attach({
        send: (message) => this.writer.write(encodeMasterMessage(message)),
        close: () => this.end(),
      });
    } catch (error) {
      this.end(error);
      return;
    }
    stream.on("data", (chunk: Buffer) => {
      try {
        for (const bytes of reader.read(chunk))
          this.listener?.hear(workerMessageFromWire(fromBinary(SessionRequestSchema, bytes)));
      } catch (error) {
        this.end(error);
      }
    });
    stream.once("end", () => this.end());
  }

  private gone(): void {
    this.listener?.gone();
    this.listener = undefined;
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
