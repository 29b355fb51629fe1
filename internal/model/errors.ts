/** The closed set of failures the system's parts tell each other about. */
export type ErrorCode =
  | "invalid" // the caller's input is wrong; `violations` say where
  | "not_found"
  | "exists" // create-only: something is there already
  | "changed" // an object is no longer the version that was asked for
  | "conflict" // valid, but not in the present state
  | "too_many" // a bound is reached; try later
  | "denied" // storage refuses it, and will again: something must be changed by hand
  | "unavailable" // no leader, no coordinator, no storage just now
  | "fenced" // this leader was deposed; its write was refused
  | "aborted" // the caller gave up
  | "corrupt" // stored bytes do not match their checksum or form
  | "user" // the user's script is at fault
  | "internal";

/** One offending field of a request; `field` is a dotted path, "" the whole. */
export interface Violation {
  field: string;
  message: string;
}

/** In place of the faults that are not told. */
export const MORE_FAULTS = "and more: only the first faults are told";

/** The one error type that crosses module borders; adapters convert at the edge. */
export class MrError extends Error {
  readonly code: ErrorCode;
  readonly violations: Violation[];

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; violations?: Violation[] } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "MrError";
    this.code = code;
    this.violations = options.violations ?? [];
  }

  /** Whether the same call may succeed later, with nothing changed by hand. */
  get retryable(): boolean {
    return this.code === "unavailable" || this.code === "too_many";
  }

  static is(error: unknown, code: ErrorCode): boolean {
    return error instanceof MrError && error.code === code;
  }
}

export function invalid(field: string, message: string): MrError {
  return new MrError("invalid", field === "" ? message : `${field}: ${message}`, {
    violations: [{ field, message }],
  });
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
