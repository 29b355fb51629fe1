import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
} from "node:http2";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import type { Certificates } from "../model/certificates.ts";
import { MrError } from "../model/errors.ts";
import type { LeaderStream, MasterMessage, WorkerMessage } from "../model/session.ts";
import { AsyncQueue } from "./async_queue.ts";
import { fromConnectError } from "./errors.ts";
import { SessionRequestSchema, SessionResponseSchema } from "./gen/mapreduce/v1/worker_pb.ts";
import { FrameReader, FrameWriter, GRPC_TYPE } from "./grpc_frames.ts";
import { masterMessageFromWire, workerMessageToWire } from "./session_conversions.ts";
import { MESSAGE_BYTES_MAX, SESSION_PATH } from "./session_server.ts";
import { dialing } from "./tls.ts";

const PING_INTERVAL_MS = 2_000;
const PING_TIMEOUT_MS = 3_000;

/** A worker's side of one session, on a connection of its own. */
export class WorkerStream implements LeaderStream {
  private readonly session: ClientHttp2Session;
  private readonly stream: ClientHttp2Stream;
  private readonly writer: FrameWriter;
  private readonly reader = new FrameReader(MESSAGE_BYTES_MAX);
  private readonly incoming = new AsyncQueue<MasterMessage>();
  private readonly pinging: NodeJS.Timeout;
  private overdue: NodeJS.Timeout | undefined;
  /** Whether anything came since the last look: then no ping is needed. */
  private heard = false;

  /** @param address HOST:PORT of the leader. */
  constructor(address: string, certificates: Certificates | undefined) {
    const { scheme, tls } = dialing(certificates);
    this.session = connect(`${scheme}://${address}`, tls);
    this.session.on("error", (error) => this.lost(error));
    this.session.once("close", () => this.lost());
    this.stream = this.session.request(
      { ":method": "POST", ":path": SESSION_PATH, "content-type": GRPC_TYPE, te: "trailers" },
      { endStream: false },
    );
    this.writer = new FrameWriter(this.stream);
    this.stream.once("response", (headers) => this.answered(headers));
    this.stream.on("data", (chunk: Buffer) => this.hear(chunk));
    this.stream.once("trailers", (trailers: IncomingHttpHeaders) => this.finish(trailers));
    this.stream.on("error", (error) => this.lost(error));
    this.stream.once("close", () => this.lost());
    this.pinging = setInterval(() => this.ping(), PING_INTERVAL_MS);
  }

  send(message: WorkerMessage): void {
    this.writer.write(toBinary(SessionRequestSchema, workerMessageToWire(message)));
  }

  messages(): AsyncIterable<MasterMessage> {
    return this.incoming;
  }

  /** Ends after what was said has gone out. */
  close(): void {
    this.writer.flush();
    this.stream.end();
  }

  abort(): void {
    this.end();
  }

  private answered(headers: IncomingHttpHeaders & IncomingHttpStatusHeader): void {
    if (headers["grpc-status"] !== undefined) this.finish(headers);
    else if (headers[":status"] === 403)
      this.end(new MrError("unavailable", "the leader refuses this worker's certificate"));
    else if (headers[":status"] !== 200)
      this.end(new MrError("unavailable", `the leader answered with HTTP ${headers[":status"]}`));
  }

  private hear(chunk: Buffer): void {
    this.heard = true;
    try {
      for (const bytes of this.reader.read(chunk)) {
        const message = masterMessageFromWire(fromBinary(SessionResponseSchema, bytes));
        if (message !== undefined) this.incoming.push(message);
      }
    } catch (error) {
      this.end(error);
    }
  }

  /** The leader has said why the stream ends. */
  private finish(trailers: IncomingHttpHeaders): void {
    const code = Number(trailers["grpc-status"] ?? 0);
    if (code === 0) return this.end();
    const message = decoded(String(trailers["grpc-message"] ?? ""));
    this.end(fromConnectError(new ConnectError(message, code)));
  }

  private lost(cause?: Error): void {
    const why = cause === undefined ? "" : `: ${cause.message}`;
    this.end(new MrError("unavailable", `the connection to the leader is lost${why}`, { cause }));
  }

  /** The first reason counts; the connection is given up with the stream. */
  private end(failure?: unknown): void {
    clearInterval(this.pinging);
    clearTimeout(this.overdue);
    this.incoming.close(failure);
    this.session.destroy();
  }

  /** A peer that stands still, or was cut off, is noticed by nothing but its silence. */
  private ping(): void {
    const heard = this.heard;
    this.heard = false;
    if (heard || this.session.connecting || this.overdue !== undefined) return;
    const pong = () => {
      clearTimeout(this.overdue);
      this.overdue = undefined;
    };
    this.overdue = setTimeout(() => this.lost(new Error("it does not answer")), PING_TIMEOUT_MS);
    if (!this.session.ping(pong)) pong();
  }
}

/** Whatever stands between may say something that is no encoding: then as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
