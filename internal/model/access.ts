import { programOf } from "./command.ts";
import { invalid } from "./errors.ts";
import { inputOf } from "./input_pattern.ts";
import type { JobSpec, StepSpec } from "./job_request.ts";
import { CONTAINER, containerNameFault, locationOf } from "./names.ts";
import { isBlob } from "./request_fields.ts";

/** A client of the proxy, and the containers that it may name. */
export interface TokenEntry {
  name: string;
  /** SHA-256 of its token, 64 hexadecimal digits. */
  hash: string;
  /** Containers, or with a `*` at the end all that begin so. */
  containers: string[];
}

/** Who sends a request. */
export interface Caller {
  name: string;
  mayUse(container: string): boolean;
}

/** Where there are no tokens. */
export const ANYONE: Caller = { name: "", mayUse: () => true };

export function callerOf({ name, containers }: TokenEntry): Caller {
  return {
    name,
    mayUse: (container) =>
      containers.some((pattern) =>
        pattern.endsWith("*") ? container.startsWith(pattern.slice(0, -1)) : container === pattern,
      ),
  };
}

/**
 * Reads a file of tokens: a line each, `NAME sha256:HEX CONTAINER,CONTAINER...`; `#` begins a comment.
 * @throws MrError `invalid` naming the line, never what stands in it.
 */
export function parseTokens(text: string): TokenEntry[] {
  const entries: TokenEntry[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const words = line.replace(/#.*/, "").trim().split(/\s+/);
    if (words[0] === "") continue;
    const entry = parseEntry(words, `line ${index + 1}`);
    if (entries.some(({ name }) => name === entry.name))
      throw invalid(`line ${index + 1}`, "a line before has the same name");
    entries.push(entry);
  }
  return entries;
}

function parseEntry([name = "", hash = "", list = "", ...rest]: string[], at: string): TokenEntry {
  if (rest.length > 0 || list === "")
    throw invalid(at, "NAME sha256:HEX CONTAINER,CONTAINER... is expected");
  if (!isTokenName(name)) throw invalid(at, "a name has 1 to 64 letters, digits, . _ or -");
  const digits = /^sha256:([0-9a-f]{64})$/.exec(hash)?.[1];
  if (digits === undefined) throw invalid(at, "sha256: and 64 hexadecimal digits are expected");
  const containers = list.split(",");
  for (const pattern of containers) {
    const fault = containerPatternFault(pattern);
    if (fault !== undefined) throw invalid(at, fault);
  }
  return { name, hash: digits, containers };
}

export function isTokenName(name: string): boolean {
  return /^[A-Za-z0-9._-]{1,64}$/.test(name);
}

/** Says what is wrong with CONTAINER or BEGINNING*, or undefined. */
export function containerPatternFault(pattern: string): string | undefined {
  if (!pattern.endsWith("*")) return containerNameFault(pattern);
  return /^[a-z0-9-]{0,63}$/.test(pattern.slice(0, -1))
    ? undefined
    : "a * stands at the end of a container's beginning only";
}

/** Every container that a job reads, writes or has its scripts in, by what its request says. */
export function containersOf(spec: JobSpec): Set<string> {
  const found = new Set<string>();
  for (const text of spec.data) found.add(inputOf(text).container);
  if (spec.phase !== "map")
    found.add(spec.output === "" ? CONTAINER.dest : locationOf(spec.output).container);
  const steps: StepSpec[] = spec.steps.length > 0 ? spec.steps : [spec];
  if (steps.some(namesBlobs)) found.add(CONTAINER.scripts);
  return found;
}

function namesBlobs({ mapper, reducer, combiner, files }: StepSpec): boolean {
  return files.length > 0 || [mapper, reducer, combiner].some((line) => isBlob(programOf(line)));
}
