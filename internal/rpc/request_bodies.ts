import { Http2ServerRequest } from "node:http2";
import type { DescMessage, DescMethod } from "@bufbuild/protobuf";
import type { connectNodeAdapter } from "@connectrpc/connect-node";
import { MrError } from "../model/errors.ts";
import { LIMIT } from "../model/limits.ts";
import { ByteBudget } from "./byte_budget.ts";
import { toConnectError } from "./errors.ts";
import { Health } from "./gen/grpc/health/v1/health_pb.ts";
import { ClusterService } from "./gen/mapreduce/v1/cluster_pb.ts";
import { JobService } from "./gen/mapreduce/v1/job_pb.ts";
import { CHUNK_BYTES, HEAD_BYTES } from "./grpc_frames.ts";
import { hasMoreFields } from "./message_shape.ts";

/** Of all requests together whose rest is waited for. */
const HELD_BYTES_MAX = 32 * 1024 * 1024;
/** What one request may hold without asking: health is answered however full the rest is. */
const FREE_BYTES = 2 * LIMIT.smallRequestBytes;
/** In which a request is to be there, in milliseconds. */
const REQUEST_MS = 15_000;

/** Those that ask for more than an id. */
const LARGER = new Map<DescMethod, number>([
  [JobService.method.submit, LIMIT.submitBytes],
  [JobService.method.list, LIMIT.viewerBytes],
  [JobService.method.count, LIMIT.viewerBytes],
  [ClusterService.method.listWorkers, LIMIT.viewerBytes],
]);

/** By path: methods that are asked with one message. */
const METHODS = new Map(
  [JobService, ClusterService, Health]
    .flatMap((service): DescMethod[] => [...service.methods])
    .map((method) => [`/${method.parent.typeName}/${method.name}`, method]),
);

type Exchange = Parameters<ReturnType<typeof connectNodeAdapter>>;

/**
 * What is asked with one message is read here, whole, before Connect sees any of it: nobody decodes
 * what is longer than its method needs, and halves of requests are held for a while, and not beyond
 * what is set aside for all of them.
 */
export class RequestBodies {
  private readonly budget = new ByteBudget(HELD_BYTES_MAX);

  /** Connect reads a request by its iterator; what that throws, it tells in the client's protocol. */
  bound(...[request, response]: Exchange): void {
    leaveOnceTold(request, response);
    const method = METHODS.get(request.url?.split("?", 1)[0] ?? "");
    if (method === undefined) return;
    const pieces: AsyncIterator<Buffer> = request[Symbol.asyncIterator]();
    const bytesMax = LARGER.get(method) ?? LIMIT.smallRequestBytes;
    const type = request.headers["content-type"] ?? "";
    const whole = () =>
      this.whole(pieces, bytesMax, (body) => checkParts(method.input, type, body));
    Object.defineProperty(request, Symbol.asyncIterator, { value: whole });
  }

  private async *whole(
    pieces: AsyncIterator<Buffer>,
    bytesMax: number,
    check: (body: Buffer) => void,
  ) {
    using share = this.budget.open(FREE_BYTES);
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => reject(new MrError("invalid", "the request does not end")),
      REQUEST_MS,
    );
    const held: Buffer[] = [];
    let bytes = 0;
    let body: Buffer;
    try {
      for (;;) {
        const { value, done } = await Promise.race([pieces.next(), late]);
        if (done === true) break;
        bytes += value.length;
        if (bytes > bytesMax + HEAD_BYTES)
          throw new MrError("too_many", `at most ${bytesMax} bytes are taken here`);
        if (!share.holds(bytes + held.length * CHUNK_BYTES))
          throw new MrError("too_many", "too much is held of requests that are not whole");
        // A copy: the piece itself may be a corner of all that was read from the connection.
        held.push(Buffer.from(value));
      }
      body = Buffer.concat(held);
      check(body);
    } catch (error) {
      throw error instanceof MrError ? toConnectError(error) : error;
    } finally {
      clearTimeout(timer);
    }
    yield body;
  }
}

/** @throws MrError `invalid`, `too_many` */
function checkParts(schema: DescMessage, contentType: string, body: Buffer): void {
  const most = LIMIT.requestParts;
  const isFramed = /^application\/(grpc|connect)/.test(contentType);
  const message = isFramed ? body.subarray(HEAD_BYTES) : body;
  if (/json/.test(contentType) ? hasMoreCommas(message, most) : hasMore(schema, message, most))
    throw new MrError("too_many", `at most ${most} parts are taken in a request`);
}

function hasMore(schema: DescMessage, message: Buffer, most: number): boolean {
  try {
    return hasMoreFields(schema, message, most);
  } catch (cause) {
    throw new MrError("invalid", "the request is no message", { cause });
  }
}

/** Between the parts of JSON there are commas, whatever else there is. */
function hasMoreCommas(json: Buffer, most: number): boolean {
  let count = 0;
  for (let at = json.indexOf(","); at >= 0 && count <= most; at = json.indexOf(",", at + 1))
    count += 1;
  return count > most;
}

/** A client that goes on sending is not waited for, once it has been told. */
function leaveOnceTold(...[request, response]: Exchange): void {
  if (request instanceof Http2ServerRequest) {
    const { stream } = request;
    stream.once("wantTrailers", () => setImmediate(() => stream.close()));
  } else response.once("finish", () => request.complete || request.destroy());
}
