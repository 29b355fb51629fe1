import type { SecureClientSessionOptions } from "node:http2";
import { checkServerIdentity, type PeerCertificate, type TLSSocket } from "node:tls";
import { type Certificates, ROLE, type Role } from "../model/certificates.ts";
import { Health } from "./gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "./gen/grpc/reflection/v1/reflection_pb.ts";
import { ClusterService } from "./gen/mapreduce/v1/cluster_pb.ts";
import { JobService } from "./gen/mapreduce/v1/job_pb.ts";
import { WorkerService } from "./gen/mapreduce/v1/worker_pb.ts";

/** Who speaks: the roles in its certificate; undefined: it has shown none. */
export type Peer = ReadonlySet<Role> | undefined;

export function peerOf(socket: TLSSocket): Peer {
  if (!socket.encrypted || !socket.authorized) return undefined;
  const certificate = socket.getPeerCertificate();
  return new Set((Object.keys(ROLE) as Role[]).filter((role) => isNamed(certificate, role)));
}

function isNamed(certificate: PeerCertificate, role: Role): boolean {
  return checkServerIdentity(ROLE[role], certificate) === undefined;
}

const ALL: readonly Role[] = ["master", "worker", "proxy"];
const LEADER = `${ClusterService.typeName}/${ClusterService.method.getLeader.name}`;
const SERVICES = new Map<string, readonly Role[]>([
  [WorkerService.typeName, ["worker"]],
  [JobService.typeName, ["proxy"]],
  [ClusterService.typeName, ["proxy"]],
  [ServerReflection.typeName, ALL],
]);

/**
 * Whether a master answers this peer at this path, where it asks for certificates. A kubelet's
 * probe knows no TLS: health is told to anybody, and nothing else is.
 */
export function admits(url: string, peer: Peer): boolean {
  // Nothing but /SERVICE/METHOD: whatever else a path may mean is nobody's.
  const [, service = "", method = ""] = /^\/([\w.]+)\/(\w+)(?:\?.*)?$/.exec(url) ?? [];
  if (service === Health.typeName) return true;
  const roles = `${service}/${method}` === LEADER ? ALL : (SERVICES.get(service) ?? []);
  return roles.some((role) => peer?.has(role));
}

/** Says to a peer that is not admitted what is wrong with it. */
export function refusalOf(socket: TLSSocket, peer: Peer): string {
  if (peer !== undefined && peer.size > 0)
    return `a certificate of ${[...peer].map((role) => ROLE[role])} does not suffice for this`;
  if (peer !== undefined) return "the certificate is made out to no part of this cluster";
  const why = socket.encrypted ? `: ${socket.authorizationError}` : "";
  return `this master asks for a certificate of its authority${why}`;
}

/** How to dial a master: it must be one by its certificate, whatever its address. */
export function dialing(certificates: Certificates | undefined): {
  scheme: "http" | "https";
  tls: Pick<SecureClientSessionOptions, "ca" | "cert" | "key" | "servername">;
} {
  if (certificates === undefined) return { scheme: "http", tls: {} };
  const { ca, cert, key } = certificates.current();
  return { scheme: "https", tls: { ca, cert, key, servername: ROLE.master } };
}
