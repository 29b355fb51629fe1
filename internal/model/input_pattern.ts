import { containerNameFault, type Location, parseLocation } from "./names.ts";

/**
 * Inputs of a job: CONTAINER, CONTAINER/PREFIX, or CONTAINER/PATTERN with Hadoop's
 * wildcards: `*` and `?` within a path segment, `**` across them, `[abc]`, `[a-z]`,
 * `[^a]`, `{one,two}`, and a backslash before what is meant as it is. A pattern also
 * matches everything below a folder that it matches.
 */
const WILDCARD = /[*?[{\\]/;
const PATTERN_CHARS_MAX = 1_024;
/** `{a,b}{c,d}` stands for four patterns; so many are too many. */
const ALTERNATIVES_MAX = 1_000;

export interface InputPattern extends Location {
  /** Whether a blob of the container is part of the input. */
  matches(name: string): boolean;
}

/** What is wrong with an entry of `data`, or undefined. */
export function inputFault(text: string): string | undefined {
  const pattern = parseInput(text);
  return typeof pattern === "string" ? pattern : undefined;
}

/** @returns the pattern, or what is wrong. `prefix` is what all it matches begin with. */
export function parseInput(text: string): InputPattern | string {
  const slash = text.indexOf("/");
  const rest = slash < 0 ? "" : text.slice(slash + 1);
  if (!WILDCARD.test(rest)) {
    const location = parseLocation(text);
    if (typeof location === "string") return location;
    return { ...location, matches: (name) => !isHidden(name, location.prefix.length) };
  }
  const container = text.slice(0, slash);
  const fault = containerNameFault(container);
  if (fault !== undefined) return fault;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f]/.test(rest) || !rest.isWellFormed())
    return "control characters and what is no Unicode are not allowed";
  if (/^\/|\/\//.test(rest)) return "a pattern has no empty segment (//, or a slash at its start)";
  if (rest.length > PATTERN_CHARS_MAX)
    return `a pattern has at most ${PATTERN_CHARS_MAX} characters`;
  const alternatives = expand(rest);
  if (typeof alternatives === "string") return alternatives;
  const parsed = alternatives.map(tokensOf);
  const wrong = parsed.find((tokens) => typeof tokens === "string");
  if (typeof wrong === "string") return wrong;
  const patterns = parsed.filter((tokens) => typeof tokens !== "string");
  const prefix = rest.slice(0, rest.search(WILDCARD));
  return { container, prefix, matches: (name) => patterns.some((p) => matchesPattern(p, name)) };
}

/** `parseInput` for text that was validated before. */
export function inputOf(text: string): InputPattern {
  const input = parseInput(text);
  if (typeof input === "string") throw new Error(`${text}: ${input}`);
  return input;
}

/** What begins with `_` or `.` is not data (`_SUCCESS`, `_bad/`), unless it was named. */
function isHidden(name: string, from: number): boolean {
  const start =
    from > 0 && name[from - 1] !== "/" && name[from] !== "/" ? name.indexOf("/", from) : from;
  return start >= 0 && /(^|\/)[_.]/.test(name.slice(start));
}

/** Writes `{a,b}` out, the first one first; they may be nested. */
function expand(pattern: string): string[] | string {
  const done: string[] = [];
  const todo = [pattern];
  for (let text = todo.pop(); text !== undefined; text = todo.pop()) {
    const group = firstGroup(text);
    if (group === undefined) done.push(text);
    else if (typeof group === "string") return group;
    else {
      const { start, end, options } = group;
      for (const option of options.toReversed())
        todo.push(text.slice(0, start) + option + text.slice(end));
    }
    if (done.length + todo.length > ALTERNATIVES_MAX)
      return "the pattern has too many alternatives";
  }
  return done;
}

function firstGroup(text: string) {
  let depth = 0;
  let start = -1;
  let from = 0;
  const options: string[] = [];
  for (let i = 0; i < text.length; i += 1) {
    const char = text[i];
    if (char === "\\") i += 1;
    else if (char === "[") i = endOfSet(text, i);
    else if (char === "{") {
      depth += 1;
      if (depth === 1) [start, from] = [i, i + 1];
    } else if (char === "," && depth === 1) {
      options.push(text.slice(from, i));
      from = i + 1;
    } else if (char === "}" && depth > 0) {
      depth -= 1;
      if (depth === 0) return { start, end: i + 1, options: [...options, text.slice(from, i)] };
    }
  }
  return depth > 0 ? "a { has no }" : undefined;
}

/** Of a set that begins at `from`, its `]`; where there is none, `from`. */
function endOfSet(text: ArrayLike<string>, from: number): number {
  for (let i = from + 1; i < text.length; i += 1) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === "]" && i > from + 1) return i;
  }
  return from;
}

type Token =
  | { kind: "char"; char: string }
  | { kind: "any" }
  | { kind: "set"; ranges: [string, string][]; not: boolean }
  | { kind: "star"; across: boolean };

function tokensOf(pattern: string): Token[] | string {
  const chars = [...pattern];
  const tokens: Token[] = [];
  for (let i = 0; i < chars.length; i += 1) {
    const char = chars[i] as string;
    if (char === "\\") {
      i += 1;
      if (chars[i] === undefined) return "a pattern does not end in a backslash";
      tokens.push({ kind: "char", char: chars[i] as string });
    } else if (char === "?") tokens.push({ kind: "any" });
    else if (char === "*") {
      const across = chars[i + 1] === "*";
      if (across) i += 1;
      tokens.push({ kind: "star", across });
    } else if (char === "[") {
      const end = endOfSet(chars, i);
      if (end === i) return "a [ has no ]";
      const set = setOf(chars.slice(i + 1, end));
      if (typeof set === "string") return set;
      tokens.push(set);
      i = end;
    } else tokens.push({ kind: "char", char });
  }
  return tokens;
}

function setOf(chars: string[]): Token | string {
  const not = chars[0] === "^" || chars[0] === "!";
  const rest = not ? chars.slice(1) : chars;
  const ranges: [string, string][] = [];
  let at = 0;
  const next = () => {
    if (rest[at] === "\\") at += 1;
    at += 1;
    return rest[at - 1] ?? "";
  };
  while (at < rest.length) {
    const from = next();
    const isRange = rest[at] === "-" && at + 1 < rest.length;
    if (isRange) at += 1;
    const to = isRange ? next() : from;
    if (to < from) return `[${from}-${to}] holds nothing`;
    ranges.push([from, to]);
  }
  return { kind: "set", ranges, not };
}

/**
 * The whole name, or a folder above it. Goes through the name once with the set of
 * places in the pattern that fit so far: no pattern makes it slow.
 */
function matchesPattern(tokens: Token[], name: string): boolean {
  let places = new Set([0]);
  let at = 0;
  for (const char of name) {
    places = withStars(tokens, places);
    // A folder that matches stands for what is below it, but for what is hidden there.
    if (char === "/" && places.has(tokens.length) && !hiddenByWildcard(tokens, name.slice(0, at)))
      return !isHidden(name, at);
    const next = new Set<number>();
    for (const place of places) {
      const token = tokens[place];
      if (token === undefined || !fits(token, char)) continue;
      next.add(token.kind === "star" ? place : place + 1);
    }
    if (next.size === 0) return false;
    places = next;
    at += char.length;
  }
  return withStars(tokens, places).has(tokens.length) && !hiddenByWildcard(tokens, name);
}

/** A star may stand for nothing. */
function withStars(tokens: Token[], places: Set<number>): Set<number> {
  const all = new Set(places);
  for (const place of all) if (tokens[place]?.kind === "star") all.add(place + 1);
  return all;
}

function fits(token: Token, char: string): boolean {
  switch (token.kind) {
    case "char":
      return token.char === char;
    case "any":
      return char !== "/";
    case "star":
      return token.across || char !== "/";
    case "set":
      return char !== "/" && token.ranges.some(([a, b]) => a <= char && char <= b) !== token.not;
  }
}

/** `*` means no hidden name; a pattern that names its first letter means it. */
function hiddenByWildcard(tokens: Token[], name: string): boolean {
  const last = name.slice(name.lastIndexOf("/") + 1);
  if (!/^[_.]/.test(last)) return false;
  const slash = tokens.findLastIndex((token) => token.kind === "char" && token.char === "/");
  return tokens[slash + 1]?.kind !== "char";
}
