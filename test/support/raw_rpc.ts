import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";

/** One gRPC call, byte by byte. */
export class RawCall implements Disposable {
  readonly stream: ClientHttp2Stream;
  /** How it was answered, in words of gRPC: its status, or `HTTP 415`; "" where it was cut off. */
  readonly status: Promise<string>;
  /** What the other side says of it. */
  message = "";
  readonly answer: Buffer[] = [];
  private readonly connection: ClientHttp2Session;

  /** @param path of the method. */
  constructor(address: string, path: string, { connection, headers = {} }: RawCallOptions = {}) {
    this.connection = connection ?? quietly(address);
    this.stream = this.connection.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc+proto",
      te: "trailers",
      ...headers,
    });
    this.stream.on("error", () => undefined);
    this.status = new Promise((resolve) => {
      this.stream.once("response", (answer) => {
        if (answer[":status"] !== 200) resolve(`HTTP ${answer[":status"]}`);
      });
      this.stream.once("trailers", (trailers) => {
        this.message = decodeURIComponent(String(trailers["grpc-message"] ?? ""));
        resolve(String(trailers["grpc-status"]));
      });
      this.stream.once("close", () => resolve(""));
    });
    this.stream.on("data", (chunk: Buffer) => this.answer.push(chunk));
    if (connection === undefined) this.stream.once("close", () => this.connection.destroy());
  }

  /** The whole of a message. @returns the status. */
  ask(message: Uint8Array, flags = 0): Promise<string> {
    this.stream.write(head(message.length, flags));
    this.stream.end(message);
    return this.status;
  }

  [Symbol.dispose](): void {
    this.stream.close();
  }
}

export interface RawCallOptions {
  connection?: ClientHttp2Session | undefined;
  headers?: Record<string, string>;
}

/** What goes before a message of so many bytes. */
export function head(bytes: number, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(bytes, 1);
  return head;
}

/** A connection whose end troubles nobody. */
export function quietly(address: string): ClientHttp2Session {
  const connection = connect(`http://${address}`, { maxSessionMemory: 1_000 });
  connection.on("error", () => undefined);
  connection.setMaxListeners(0);
  return connection;
}
