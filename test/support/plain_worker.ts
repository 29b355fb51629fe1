import { join } from "node:path";
import {
  type ChannelCredentials,
  type ClientDuplexStream,
  type ClientOptions,
  credentials,
  loadPackageDefinition,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

/** As @grpc/grpc-js sees the messages: plain objects, the oneof's case in `message`. */
export interface Said {
  message: string;
  welcome?: { epoch: string; leaseMs: number };
  grant?: { attempt: string; job: { output: string }; map?: { ranges: { name: string }[] } };
  settled?: { attempt: string; won: boolean };
}
type Session = ClientDuplexStream<object, Said>;

export interface PlainSession {
  stream: Session;
  heard: Said[];
  /** Of the first error; never resolves without one. */
  failed: Promise<Error & { code: number; details: string }>;
  close: () => void;
}

/** A worker written against nothing but the .proto files, with a library we do not use ourselves. */
export function openSession(
  address: string,
  channel: ChannelCredentials = credentials.createInsecure(),
  options: ClientOptions = {},
): PlainSession {
  const definition = loadSync("mapreduce/v1/worker.proto", {
    includeDirs: [join(import.meta.dirname, "..", "..", "proto")],
    longs: String,
    oneofs: true,
  });
  const loaded = loadPackageDefinition(definition) as unknown as {
    mapreduce: {
      v1: { WorkerService: new (...args: unknown[]) => { Session(): Session; close(): void } };
    };
  };
  const client = new loaded.mapreduce.v1.WorkerService(address, channel, options);
  const stream = client.Session();
  const heard: Said[] = [];
  stream.on("data", (message: Said) => heard.push(message));
  const failed: PlainSession["failed"] = new Promise((resolve) =>
    stream.on("error", resolve as never),
  );
  return { stream, heard, failed, close: () => client.close() };
}
