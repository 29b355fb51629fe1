import { compilePattern, isHidden, measurePattern } from "./glob.ts";
import { containerNameFault, type Location, locationOf, parseLocation } from "./names.ts";

/**
 * Inputs of a job: CONTAINER, CONTAINER/PREFIX, or CONTAINER/PATTERN with Hadoop's
 * wildcards (glob.ts). A pattern also matches everything below a folder that it matches.
 */
const WILDCARD = /[*?[{\\]/;
const PATTERN_CHARS_MAX = 1_024;
/** `{a,b}{c,d}` stands for four patterns; so many are too many. */
const ALTERNATIVES_MAX = 1_000;

export interface InputPattern extends Location {
  /** Whether a blob of the container is part of the input. */
  matches(name: string): boolean;
}

/** What an entry of `data` comes to: its alternatives written out, in characters; or what is wrong. */
export function inputSize(text: string): number | string {
  const pattern = patternIn(text);
  if (pattern === undefined) {
    const location = parseLocation(text);
    return typeof location === "string" ? location : text.length;
  }
  const fault = containerNameFault(pattern.container);
  if (fault !== undefined) return fault;
  const { rest } = pattern;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f]/.test(rest) || !rest.isWellFormed())
    return "control characters and what is no Unicode are not allowed";
  if (/^\/|\/\//.test(rest)) return "a pattern has no empty segment (//, or a slash at its start)";
  if (rest.length > PATTERN_CHARS_MAX)
    return `a pattern has at most ${PATTERN_CHARS_MAX} characters`;
  const alternatives = measurePattern(rest);
  if (typeof alternatives === "string") return alternatives;
  if (alternatives > ALTERNATIVES_MAX) return "the pattern has too many alternatives";
  return alternatives * text.length;
}

/** @returns the pattern, or what is wrong. `prefix` is what all it matches begin with. */
export function parseInput(text: string): InputPattern | string {
  const size = inputSize(text);
  return typeof size === "string" ? size : inputOf(text);
}

/** Of text that was validated before: where its blobs lie. What it costs does not depend on the pattern. */
export function inputPlaceOf(text: string): Location {
  const pattern = patternIn(text);
  if (pattern === undefined) return locationOf(text);
  return {
    container: pattern.container,
    prefix: pattern.rest.slice(0, pattern.rest.search(WILDCARD)),
  };
}

/** `parseInput` for text that was validated before. */
export function inputOf(text: string): InputPattern {
  const place = inputPlaceOf(text);
  const pattern = patternIn(text);
  if (pattern === undefined)
    return { ...place, matches: (name) => !isHidden(name, place.prefix.length) };
  return { ...place, matches: compilePattern(pattern.rest) };
}

/** Undefined: there is no wildcard in it. */
function patternIn(text: string): { container: string; rest: string } | undefined {
  const slash = text.indexOf("/");
  const rest = slash < 0 ? "" : text.slice(slash + 1);
  return WILDCARD.test(rest) ? { container: text.slice(0, slash), rest } : undefined;
}
