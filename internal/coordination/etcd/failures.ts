import { MrError, messageOf } from "../../model/errors.ts";

/** Whose failures they are: for the words that an operator reads. No password. */
export interface Access {
  user: string;
  hasPassword: boolean;
  /** Of all keys of ours. */
  prefix: string;
}

/** The codes of gRPC that say nothing of the request, but of the connection or of this member. */
const MEMBERS_OWN = new Set(["CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL"]);
for (const name of ["UNAVAILABLE", "DATA_LOSS", "UNIMPLEMENTED"]) MEMBERS_OWN.add(name);

/** Whether another member may do better: this one is down, deaf, cut off from the others or overloaded. */
export function isMembersOwn(error: unknown): boolean {
  const message = messageOf(error);
  const [, code = ""] = /^\d+ ([A-Z_]+): /.exec(message) ?? [];
  return MEMBERS_OWN.has(code) || /too many requests|not leader/.test(message);
}

/** The login was good once: etcd was started again, the token has run out, or users were changed. */
export function isStaleLogin(error: unknown): boolean {
  return isUnknownToken(error) || /revision of auth store is old/.test(messageOf(error));
}

/** It has run out, or this member has never heard of it. */
export function isUnknownToken(error: unknown): boolean {
  return /invalid auth token/.test(messageOf(error));
}

/** A name or password that will be as wrong the next time. */
export function isRefusedLogin(error: unknown): boolean {
  return /authentication failed|user name not found|authentication is not enabled/.test(
    messageOf(error),
  );
}

/** What etcd will refuse again must not be repeated for ever. */
function isFinal(message: string): boolean {
  return /^\d+ INVALID_ARGUMENT|request is too large|too many operations|larger than max/.test(
    message,
  );
}

/** Said by adapters' callers as it is. A refusal is `unavailable`: it ends when the setting is mended. */
export function etcdError(cause: unknown, access: Access): MrError {
  if (cause instanceof MrError) return cause;
  const message = messageOf(cause);
  const refusal = refusalIn(message, access);
  if (refusal !== undefined) return new MrError("unavailable", refusal, { cause });
  const code = isFinal(message) ? "internal" : "unavailable";
  return new MrError(code, `etcd: ${plainWords(message)}`, { cause });
}

function refusalIn(message: string, { user, hasPassword, prefix }: Access): string | undefined {
  if (/authentication failed|user name not found/.test(message))
    return `etcd refuses user ${user}: wrong name or password (MR_ETCD_USER, ETCD_ROOT_PASSWORD)`;
  if (/authentication is not enabled/.test(message))
    return "etcd asks nobody for a password, yet ETCD_ROOT_PASSWORD is set: enable its authentication, or unset it";
  if (/user name is empty/.test(message))
    return "etcd asks for a user and a password (MR_ETCD_USER, ETCD_ROOT_PASSWORD)";
  if (/permission denied|PERMISSION_DENIED/.test(message)) {
    const who = hasPassword ? `user ${user}` : "this client";
    return `etcd: ${who} may not read and write the keys under ${prefix} (MR_ETCD_USER, MR_ETCD_PREFIX): permission denied`;
  }
  if (isStaleLogin(message))
    return `etcd takes a new login of user ${user} for an old one, again and again (${plainWords(message)})`;
  return undefined;
}

/** Without gRPC's number and name, and what it tells of its own insides. */
export function plainWords(message: string): string {
  if (/DEADLINE_EXCEEDED/.test(message)) return "no answer in time";
  return message.replace(/^\d+ [A-Z_]+: /, "");
}
