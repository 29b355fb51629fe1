import { programOf } from "./command.ts";
import { invalid, MrError } from "./errors.ts";
import { inputPlaceOf } from "./input_pattern.ts";
import type { JobSpec, StepSpec } from "./job_request.ts";
import { CONTAINER, containerNameFault, folderPrefix, locationOf, prefixFault } from "./names.ts";
import { fileOf, isBlob } from "./request_fields.ts";

/**
 * Who may read and write what. A token's owner is given places, each written as
 *
 *   CONTAINER            all of a container
 *   BEGINNING*           all containers that begin so; `*` alone: everything
 *   CONTAINER/FOLDER     what lies in a folder of it, or the one blob of that name
 *   CONTAINER/BEGIN*     blobs that begin so
 *
 * and may read and write there; with `r:` before it only read, with `w:` only write.
 */

/** A client of the proxy. */
export interface TokenEntry {
  name: string;
  /** SHA-256 of its token, 64 hexadecimal digits. */
  hash: string;
  /** As above. */
  places: string[];
}

export type Right = "read" | "write";

/** A blob (`exact`), or all blobs whose names begin with `prefix`. */
export interface Place {
  container: string;
  prefix: string;
  exact: boolean;
}

/** What a request does somewhere. */
export interface Need extends Place {
  right: Right;
}

/** Who sends a request. */
export interface Caller {
  name: string;
  /** What he was given, as it is written; undefined: everything. */
  places: readonly string[] | undefined;
  may(right: Right, place: Place): boolean;
  /** Whether anything in this container is his. */
  knows(container: string): boolean;
}

/** Where there are no tokens. */
export const ANYONE: Caller = {
  name: "",
  places: undefined,
  may: () => true,
  knows: () => true,
};

interface Given {
  rights: readonly Right[];
  container: string;
  /** All containers that begin so. */
  several: boolean;
  /** Undefined: all of the container. */
  within: { name: string; begins: boolean } | undefined;
}

/** @throws MrError `invalid` */
export function callerOf({ name, places }: Omit<TokenEntry, "hash">): Caller {
  const given = places.map((text) => {
    const parsed = parsePlace(text);
    if (typeof parsed === "string") throw new MrError("invalid", `${text}: ${parsed}`);
    return parsed;
  });
  const seesAll = given.some(
    ({ several, container, rights }) => several && container === "" && rights.length === 2,
  );
  return {
    name,
    places: seesAll ? undefined : places,
    may: (right, place) => given.some((each) => each.rights.includes(right) && holds(each, place)),
    knows: (container) => given.some((each) => isIn(each, container)),
  };
}

function isIn({ several, container }: Given, name: string): boolean {
  return several ? name.startsWith(container) : name === container;
}

function holds(given: Given, { container, prefix, exact }: Place): boolean {
  if (!isIn(given, container)) return false;
  const { within } = given;
  if (within === undefined) return true;
  if (within.begins) return prefix.startsWith(within.name);
  // A prefix `a` is of `ab` too: only what is below the folder is in it.
  return prefix.startsWith(`${within.name}/`) || (exact && prefix === within.name);
}

function parsePlace(text: string): Given | string {
  if (/[\s,]/.test(text)) return "a place has no blanks and no commas: give the folder above it";
  const [, letter, place = ""] = /^(?:([rw]):)?(.*)$/s.exec(text) ?? [];
  const rights = ({ r: ["read"], w: ["write"] } as const)[letter ?? ""] ?? BOTH;
  const slash = place.indexOf("/");
  const container = slash < 0 ? place : place.slice(0, slash);
  if (slash < 0 && container.endsWith("*")) {
    const begin = container.slice(0, -1);
    if (!/^[a-z0-9-]{0,63}$/.test(begin))
      return "a * stands at the end of a container's beginning only";
    return { rights, container: begin, several: true, within: undefined };
  }
  const fault = containerNameFault(container);
  if (fault !== undefined) return fault;
  const rest = slash < 0 ? "" : place.slice(slash + 1);
  if (rest === "") return { rights, container, several: false, within: undefined };
  const begins = rest.endsWith("*");
  const name = begins ? rest.slice(0, -1) : rest.replace(/\/$/, "");
  if (name === "" && begins) return { rights, container, several: false, within: undefined };
  const wrong =
    prefixFault(name) ?? (name.includes("*") ? "a * stands at the end only" : undefined);
  if (wrong !== undefined) return wrong;
  return { rights, container, several: false, within: { name, begins } };
}

const BOTH = ["read", "write"] as const;

/** Says what is wrong with a place as it is written, or undefined. */
export function placeFault(text: string): string | undefined {
  const parsed = parsePlace(text);
  return typeof parsed === "string" ? parsed : undefined;
}

/**
 * Reads a file of tokens: a line each, `NAME sha256:HEX PLACE,PLACE...`; `#` begins a comment, at the
 * beginning of a line or after a blank: a folder's name may have one.
 * @throws MrError `invalid` naming the line, never what stands in it.
 */
export function parseTokens(text: string): TokenEntry[] {
  const entries: TokenEntry[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const words = line
      .replace(/(^|\s)#.*/, "")
      .trim()
      .split(/\s+/);
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
  const places = list.split(",");
  for (const place of places) {
    const fault = placeFault(place);
    if (fault !== undefined) throw invalid(at, fault);
  }
  return { name, hash: digits, places };
}

export function isTokenName(name: string): boolean {
  return /^[A-Za-z0-9._-]{1,64}$/.test(name);
}

/**
 * Tokens of which one could replace a script that another one's jobs run: both may write all of
 * dfs-scripts, and neither may do everything. For a warning.
 */
export function sharedScripts(entries: TokenEntry[]): string[] {
  const all = { container: CONTAINER.scripts, prefix: "", exact: false };
  const names = entries
    .map(callerOf)
    .filter((caller) => caller.places !== undefined && caller.may("write", all))
    .map(({ name }) => name);
  return names.length > 1 ? names : [];
}

/**
 * Two tokens' places of which one holds the other by its `*`, and that so may be an accident of names:
 * `team-*` is also what begins with `team-a-`. Undefined: none of this entry's.
 */
export function accidental(entry: TokenEntry, others: TokenEntry[]): string | undefined {
  const placesIn = ({ name, places }: TokenEntry) =>
    places.flatMap((text) => {
      const place = parsePlace(text);
      return typeof place === "string" || place.container === "" ? [] : [{ name, text, place }];
    });
  for (const other of others.filter(({ name }) => name !== entry.name).flatMap(placesIn))
    for (const { text, place } of placesIn(entry)) {
      const isWider = place.several && isIn(place, other.place.container);
      if (isWider || (other.place.several && isIn(other.place, place.container)))
        return `${text} and ${other.name}'s ${other.text} have containers in common`;
    }
  return undefined;
}

/** What a job does where, by what its request says; `id` where it was accepted. */
export function needsOf(spec: JobSpec, id = ""): Need[] {
  const found = new Map<string, Need>();
  const add = (right: Right, container: string, prefix: string, exact: boolean) => {
    const need = { right, container, prefix, exact };
    found.set(JSON.stringify(need), need);
  };
  for (const text of spec.data) {
    const { container, prefix } = inputPlaceOf(text);
    add("read", container, prefix, false);
  }
  if (spec.phase !== "map") {
    const { container, prefix } = locationOf(spec.output || `${CONTAINER.dest}/${id}`);
    add("write", container, folderPrefix(prefix), false);
  }
  const steps: StepSpec[] = spec.steps.length > 0 ? spec.steps : [spec];
  for (const { mapper, reducer, combiner, files } of steps) {
    for (const program of [mapper, reducer, combiner].map(programOf))
      if (isBlob(program)) add("read", CONTAINER.scripts, program, true);
    for (const file of files) add("read", CONTAINER.scripts, fileOf(file).name, true);
  }
  return [...found.values()];
}

/** As people write it. */
export function sayPlace({ container, prefix, exact }: Place): string {
  return prefix === "" ? container : `${container}/${prefix}${exact ? "" : "*"}`;
}
