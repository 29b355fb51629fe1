import { RestError } from "@azure/storage-blob";
import { type ErrorCode, MrError, messageOf } from "../../model/errors.ts";

/** What a request was for: every failure says it. */
export interface Asked {
  /** E.g. "reading". */
  doing: string;
  container?: string;
  name?: string;
  /** How long an answer was waited for, in milliseconds. */
  withinMs?: number;
}

/** Whom requests go to. */
export interface Service {
  host?: string;
  /** Wall clock, in milliseconds: what we show ends then. */
  sasEndsMs?: number | undefined;
}

type Answer = [code: ErrorCode, words: string];

const RIGHTS =
  "the identity, key or SAS has no right to it, or the account's network rules keep this address out";
const KEY = "the account's own encryption key cannot be used: look at its key vault";

/** By x-ms-error-code. What is not here goes by its status. */
const ANSWERS: Record<string, Answer> = {
  BlobAlreadyExists: ["exists", "there is one already"],
  ContainerAlreadyExists: ["exists", "there is one already"],
  ContainerNotFound: ["not_found", "there is no such container"],
  // These pass.
  ContainerBeingDeleted: ["unavailable", "the container is being deleted"],
  AccountBeingCreated: ["unavailable", "the account is being created"],
  PendingCopyOperation: ["unavailable", "a copy to it is under way"],
  SystemInUse: ["unavailable", "the service is busy"],
  // These do not.
  BlobArchived: ["denied", "it is archived: rehydrate it first"],
  BlobBeingRehydrated: ["denied", "it is archived, and not rehydrated yet: wait until it is"],
  BlobImmutableDueToPolicy: ["denied", "an immutability policy protects it"],
  BlobImmutableDueToLegalHold: ["denied", "a legal hold protects it"],
  BlobUsesCustomerSpecifiedEncryption: ["denied", "it is encrypted with a key of its writer's own"],
  InvalidBlobType: ["denied", "it is a page or append blob: delete it, or take another name"],
  SnapshotsPresent: ["denied", "it has snapshots: delete these first"],
  ContainerDisabled: ["denied", "an administrator has disabled the container"],
  ContainerBeingDisabled: ["denied", "an administrator has disabled the container"],
  PublicAccessNotPermitted: ["denied", "the account permits no access without a key or identity"],
  OperationNotAllowedInCurrentState: ["denied", "not in the account's present state (is it full?)"],
  AccountIsDisabled: ["denied", "the account is disabled"],
  InsufficientAccountPermissions: ["denied", RIGHTS],
  AuthorizationFailure: ["denied", RIGHTS],
  AuthorizationPermissionMismatch: ["denied", RIGHTS],
  AuthenticationFailed: [
    "denied",
    "the key, SAS or identity shown is not accepted (has it run out? is this machine's clock right?)",
  ],
  InvalidResourceName: ["denied", "storage takes no such name"],
  InvalidUri: ["denied", "storage takes no such name"],
  InvalidBlockList: ["denied", "what was uploaded for it is gone"],
};

/** For the callers of the port: its code says what to do, its message what was asked of whom. */
export function storageError(error: unknown, asked: Asked, service: Service): MrError {
  if (error instanceof MrError) return error;
  const [code, words] =
    error instanceof RestError ? restAnswer(error, asked, service) : otherAnswer(error, asked);
  const at = code === "unavailable" && service.host !== undefined ? ` at ${service.host}` : "";
  return new MrError(code, `storage: ${described(asked)}${at}: ${words}`, { cause: error });
}

/** The service's own name for a failure, in whatever error it has become; undefined without. */
export function answerCode(error: unknown): string | undefined {
  const rest = error instanceof MrError ? error.cause : error;
  if (!(rest instanceof RestError)) return undefined;
  // A HEAD has no body to say it in.
  return rest.code ?? rest.response?.headers.get("x-ms-error-code");
}

/** Of a publication: there are no such blocks, or no blob or container that they would be of. */
export function isGone(error: unknown): boolean {
  if (MrError.is(error, "not_found")) return true;
  return /^Invalid(BlockList|BlobOrBlock)$/.test(answerCode(error) ?? "");
}

function described({ doing, container, name }: Asked): string {
  if (container === undefined) return doing;
  return `${doing} ${name === undefined ? container : `${container}/${shown(name)}`}`;
}

/** A name as it can be shown on one line. */
export function shown(name: string): string {
  return name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (character) => {
    return `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`;
  });
}

function restAnswer(error: RestError, asked: Asked, service: Service): Answer {
  const { statusCode = 0 } = error;
  const code = answerCode(error) ?? "";
  if (statusCode === 0) return otherAnswer(error, asked);
  const label = code === "" ? String(statusCode) : code;
  if ((statusCode === 401 || statusCode === 403) && (service.sasEndsMs ?? Infinity) < Date.now())
    return ["denied", `the SAS has expired (${label})`];
  const known = ANSWERS[code];
  if (known !== undefined) return [known[0], `${known[1]} (${label})`];
  const [kind, words] = byStatus(statusCode, code);
  return [kind, words === "" ? `${label} (${statusCode})` : `${words} (${label})`];
}

/** What is wrong with the request itself is wrong the next time too. */
function byStatus(status: number, code: string): Answer {
  if (/^KeyVault/.test(code)) return ["denied", KEY];
  if (/^Lease/.test(code)) return ["denied", "somebody holds a lease on it: break that first"];
  if (status === 404) return ["not_found", "there is none"];
  if (status === 412) return ["changed", "it is no longer the version that was asked for"];
  if (status === 401 || status === 403) return ["denied", RIGHTS];
  if (status === 408 || status === 429 || status >= 500) return ["unavailable", ""];
  return ["denied", ""];
}

const NETWORK: Record<string, string> = {
  ECONNREFUSED: "connection refused",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the host's name cannot be looked up",
  ECONNRESET: "the connection broke off",
  EPIPE: "the connection broke off",
  ETIMEDOUT: "no connection in time",
  EHOSTUNREACH: "no way to the host",
  ENETUNREACH: "no way to the host",
};

/** There was no answer. */
function otherAnswer(error: unknown, { withinMs }: Asked): Answer {
  const { name } = error as Error;
  if (/Credential|Authentication/.test(name)) {
    const [first = ""] = messageOf(error).split("\n");
    return ["unavailable", `no identity to show: ${first}`];
  }
  if (name === "AbortError" || name === "TimeoutError")
    return ["unavailable", `no answer${withinMs === undefined ? "" : ` in ${withinMs / 1000} s`}`];
  const code = (error as { code?: unknown }).code;
  if (typeof code !== "string") return ["unavailable", messageOf(error)];
  const words = NETWORK[code];
  return ["unavailable", words === undefined ? `no answer (${code})` : `${words} (${code})`];
}
