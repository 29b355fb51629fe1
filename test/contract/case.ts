/** One rule of CONTRACT.md, or a few, stated as bytes in and bytes out. */
export interface ContractCase {
  /** Names of rules, separated by spaces. */
  rules: string;
  title: string;
  /** Blobs of the container `input`. */
  input: Record<string, string | Uint8Array>;
  /** Blobs of dfs-scripts. */
  scripts?: Record<string, string | Uint8Array>;
  /** `data` is `input` unless it says otherwise. */
  request: Record<string, unknown>;
  /** A request that is made, and succeeds, before this one; then there is no local run. */
  before?: Record<string, unknown>;
  /** The bytes of the parts in order, exactly. */
  parts?: (string | Uint8Array)[];
  /** Names of all objects of the result, but for `_SUCCESS`. */
  names?: string[];
  /** The lines of all parts, in any order. */
  lines?: string[];
  /** The result in any form. */
  check?: (parts: Map<string, Buffer>) => void;
  /** The error's message. */
  fails?: RegExp;
  counters?: Record<string, number>;
  /** What the attempts' logs say together. */
  log?: RegExp;
}
