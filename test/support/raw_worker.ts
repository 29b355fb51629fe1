import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  SessionRequestSchema,
  type SessionResponse,
  SessionResponseSchema,
} from "../../internal/rpc/gen/mapreduce/v1/worker_pb.ts";

type Message = NonNullable<MessageInitShape<typeof SessionRequestSchema>["message"]>;

/** A worker that says whatever it is told to: byte by byte, if need be. */
export class RawWorker implements Disposable {
  readonly heard: SessionResponse["message"][] = [];
  readonly stream: ClientHttp2Stream;
  /** The reason that the other side gives, or "". */
  readonly ended: Promise<string>;
  private readonly connection: ClientHttp2Session;
  private rest = Buffer.alloc(0);

  /** @param connection undefined: one of its own. @param reads whether it takes what it is told. */
  constructor(address: string, { connection, reads = true }: RawWorkerOptions = {}) {
    this.connection = connection ?? connect(`http://${address}`);
    this.connection.on("error", () => undefined);
    this.stream = this.connection.request({
      ":method": "POST",
      ":path": "/mapreduce.v1.WorkerService/Session",
      "content-type": "application/grpc+proto",
      te: "trailers",
    });
    this.stream.on("error", () => undefined);
    this.ended = new Promise((resolve) => {
      this.stream.once("trailers", (trailers) => resolve(String(trailers["grpc-message"] ?? "")));
      this.stream.once("close", () => resolve(""));
    });
    if (reads) this.stream.on("data", (chunk: Buffer) => this.hear(chunk));
    else this.stream.pause();
  }

  private hear(chunk: Buffer): void {
    this.rest = Buffer.concat([this.rest, chunk]);
    while (this.rest.length >= 5 && this.rest.length >= 5 + this.rest.readUInt32BE(1)) {
      const end = 5 + this.rest.readUInt32BE(1);
      this.heard.push(fromBinary(SessionResponseSchema, this.rest.subarray(5, end)).message);
      this.rest = this.rest.subarray(end);
    }
  }

  /** The bytes of a message as they go over the wire. */
  static frame(message: Message): Buffer {
    const bytes = toBinary(SessionRequestSchema, create(SessionRequestSchema, { message }));
    const head = Buffer.alloc(5);
    head.writeUInt32BE(bytes.length, 1);
    return Buffer.concat([head, bytes]);
  }

  say(message: Message): void {
    this.stream.write(RawWorker.frame(message));
  }

  hello(workerId: string, more: object = {}): void {
    const value = { workerId, host: "h", pid: 1, slots: 1, reducesPerSlot: 1, ...more };
    this.say({ case: "hello", value });
  }

  [Symbol.dispose](): void {
    this.stream.close();
    this.connection.destroy();
  }
}

export interface RawWorkerOptions {
  connection?: ClientHttp2Session | undefined;
  reads?: boolean;
}
