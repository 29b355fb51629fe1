import { Code, ConnectError } from "@connectrpc/connect";
import { type ErrorCode, MORE_FAULTS, MrError, type Violation } from "../model/errors.ts";
import { LIMIT } from "../model/limits.ts";
import { ViolationsSchema } from "./gen/mapreduce/v1/job_pb.ts";

const CODES: Record<ErrorCode, Code> = {
  invalid: Code.InvalidArgument,
  not_found: Code.NotFound,
  exists: Code.AlreadyExists,
  changed: Code.FailedPrecondition,
  conflict: Code.FailedPrecondition,
  too_many: Code.ResourceExhausted,
  denied: Code.PermissionDenied,
  unavailable: Code.Unavailable,
  fenced: Code.Unavailable,
  aborted: Code.Canceled,
  corrupt: Code.DataLoss,
  user: Code.Unknown,
  internal: Code.Internal,
};

/** Of what an answer says went wrong; in a header each may take nine bytes. */
const MESSAGE_CHARS_MAX = 1_000;
/** Of the faults that are told with it: all headers of an answer have 64 KiB together. */
const VIOLATION_BYTES_MAX = 24 * 1024;
const FIELD_CHARS_MAX = 300;

/** For the wire. What is not an MrError is ours, and says nothing of its insides. */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  if (!(error instanceof MrError)) return new ConnectError("internal error", Code.Internal);
  const violations = told(error.violations);
  const details =
    violations.length === 0 ? [] : [{ desc: ViolationsSchema, value: { violations } }];
  const message = short(error.message, MESSAGE_CHARS_MAX);
  return new ConnectError(message, CODES[error.code], undefined, details);
}

/** Half a character has no form in a header: to send one would throw. */
function short(text: string, charsMax: number): string {
  return (text.length > charsMax ? `${text.slice(0, charsMax)}...` : text).toWellFormed();
}

/** As many as an answer can hold. */
function told(violations: Violation[]): Violation[] {
  const some: Violation[] = [];
  let bytes = 0;
  for (const { field, message } of violations) {
    const one = {
      field: short(field, FIELD_CHARS_MAX),
      message: short(message, MESSAGE_CHARS_MAX),
    };
    bytes += Buffer.byteLength(one.field) + Buffer.byteLength(one.message);
    if (bytes > VIOLATION_BYTES_MAX || some.length > LIMIT.violations)
      return [...some, { field: "", message: MORE_FAULTS }];
    some.push(one);
  }
  return some;
}

/** From the wire. A server that was killed reaches a client as Canceled: a lost connection. */
export function fromConnectError(cause: unknown, signal?: AbortSignal): MrError {
  if (cause instanceof MrError) return cause;
  if (signal?.aborted) return new MrError("aborted", "the call was given up", { cause });
  const error = ConnectError.from(cause);
  const violations = error
    .findDetails(ViolationsSchema)
    .flatMap((detail) => detail.violations.map(({ field, message }) => ({ field, message })));
  const code = isConnectionLoss(error) ? "unavailable" : codeOf(error.code);
  return new MrError(code, error.rawMessage, { cause, violations });
}

const LOST = new Set([Code.Canceled, Code.Aborted, Code.DeadlineExceeded, Code.Unknown]);

/** Codes that our servers never send, errors of the socket, and answers that break off. */
function isConnectionLoss(error: ConnectError): boolean {
  if (LOST.has(error.code)) return true;
  const { cause } = error;
  if (cause instanceof Error && typeof (cause as NodeJS.ErrnoException).code === "string")
    return true;
  return /^(http\/2 stream closed|protocol error)/.test(error.rawMessage);
}

function codeOf(code: Code): ErrorCode {
  for (const [ours, theirs] of Object.entries(CODES)) if (theirs === code) return ours as ErrorCode;
  return "internal";
}
