import { Agent as HttpAgent, request as http } from "node:http";
import { Agent as HttpsAgent, request as https } from "node:https";
import { text } from "node:stream/consumers";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import type { Certificates } from "../model/certificates.ts";
import type { LeaderRecord } from "../model/coordinator.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { ClusterService, GetLeaderResponseSchema } from "./gen/mapreduce/v1/cluster_pb.ts";
import { dialing } from "./tls.ts";

const ASK_MS = 3_000;
const PATH = `/${ClusterService.typeName}/${ClusterService.method.getLeader.name}`;
/** Connections are kept for the next question; a certificate that was renewed makes new ones. */
const KEPT = { keepAlive: true, timeout: 30_000 };
const HTTP = new HttpAgent(KEPT);
const HTTPS = new HttpsAgent(KEPT);

/**
 * Asks a master who leads, by Connect's plain POST. When a leader dies, all its workers ask
 * at once, and again until there is another.
 * @param address HOST:PORT
 * @throws MrError `unavailable`
 */
export async function askLeader(
  address: string,
  certificates: Certificates | undefined,
): Promise<LeaderRecord> {
  try {
    const { status, answer } = await post(address, certificates);
    if (status !== 200) throw new MrError("unavailable", String(answer.message));
    const { id, address: place, epoch, pid } = fromJson(GetLeaderResponseSchema, answer);
    return { id, address: place, epoch: Number(epoch), pid };
  } catch (cause) {
    if (cause instanceof MrError) throw cause;
    throw new MrError("unavailable", messageOf(cause), { cause });
  }
}

async function post(address: string, certificates: Certificates | undefined) {
  const { scheme, tls } = dialing(certificates);
  const options = {
    method: "POST",
    headers: { "content-type": "application/json" },
    signal: AbortSignal.timeout(ASK_MS),
    ...tls,
  };
  const url = `${scheme}://${address}${PATH}`;
  const request =
    scheme === "https"
      ? https(url, { ...options, agent: HTTPS })
      : http(url, { ...options, agent: HTTP });
  const { promise, resolve, reject } = Promise.withResolvers<import("node:http").IncomingMessage>();
  request.once("response", resolve);
  request.once("error", reject);
  request.end("{}");
  const response = await promise;
  return { status: response.statusCode, answer: JSON.parse(await text(response)) as JsonObject };
}
