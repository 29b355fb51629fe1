/**
 * Hadoop's wildcards: `*` and `?` within a path segment, `**` across them, `[abc]`, `[a-z]`,
 * `[^a]`, `{one,two}`, and a backslash before what is meant as it is.
 *
 * A pattern is read into a tree and compiled to a machine whose states are as many as the
 * pattern has characters. Alternatives are never written out: to match a name costs at most
 * its length times the pattern's, whatever is in them.
 */
type Token =
  | { kind: "char"; char: string }
  | { kind: "any" }
  | { kind: "set"; ranges: [string, string][]; not: boolean }
  | { kind: "star"; across: boolean };

type Node = Token | { kind: "group"; options: Node[][] };

/** How many patterns it stands for, or what is wrong with it. */
export function measurePattern(pattern: string): number | string {
  const nodes = new PatternReader(pattern).read();
  return typeof nodes === "string" ? nodes : countOf(nodes);
}

function countOf(nodes: Node[]): number {
  let count = 1;
  for (const node of nodes)
    if (node.kind === "group") count *= node.options.reduce((sum, one) => sum + countOf(one), 0);
  return count;
}

class PatternReader {
  private readonly chars: string[];
  private at = 0;

  constructor(pattern: string) {
    this.chars = [...pattern];
  }

  read(): Node[] | string {
    return this.sequence(false);
  }

  /** Up to the end; in a group up to its next `,` or its `}`. */
  private sequence(inGroup: boolean): Node[] | string {
    const nodes: Node[] = [];
    for (; this.at < this.chars.length; this.at += 1) {
      const char = this.chars[this.at] as string;
      if (inGroup && (char === "," || char === "}")) return nodes;
      const node = char === "{" ? this.group() : this.token(char);
      if (typeof node === "string") return node;
      nodes.push(node);
    }
    return inGroup ? "a { has no }" : nodes;
  }

  private group(): Node | string {
    const options: Node[][] = [];
    do {
      this.at += 1;
      const option = this.sequence(true);
      if (typeof option === "string") return option;
      options.push(option);
    } while (this.chars[this.at] === ",");
    return { kind: "group", options };
  }

  private token(char: string): Token | string {
    if (char === "?") return { kind: "any" };
    if (char === "\\") {
      this.at += 1;
      const meant = this.chars[this.at];
      if (meant === undefined) return "a pattern does not end in a backslash";
      return { kind: "char", char: meant };
    }
    if (char === "*") {
      const across = this.chars[this.at + 1] === "*";
      if (across) this.at += 1;
      return { kind: "star", across };
    }
    return char === "[" ? this.set() : { kind: "char", char };
  }

  private set(): Token | string {
    const end = this.endOfSet();
    if (end === undefined) return "a [ has no ]";
    const set = setOf(this.chars.slice(this.at + 1, end));
    this.at = end;
    return set;
  }

  /** A `]` that comes first is one of the set. */
  private endOfSet(): number | undefined {
    const from = this.at;
    for (let i = from + 1; i < this.chars.length; i += 1) {
      if (this.chars[i] === "\\") i += 1;
      else if (this.chars[i] === "]" && i > from + 1) return i;
    }
    return undefined;
  }
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

type State =
  | (Token & { next: number })
  | { kind: "fork"; options: number[] }
  /** The whole pattern was met. */
  | { kind: "end" };

function compile(nodes: Node[], states: State[], then: number): number {
  let next = then;
  for (const node of nodes.toReversed()) {
    states.push(
      node.kind === "group"
        ? { kind: "fork", options: node.options.map((option) => compile(option, states, next)) }
        : { ...node, next },
    );
    next = states.length - 1;
  }
  return next;
}

/**
 * How a way through the pattern has begun the path segment that it is in: `*` means no hidden
 * name, a pattern that names its first letter means it. One bit each.
 */
const OPEN = 1;
const NAMED = 2;
const WILD = 4;

/** The places in the pattern that fit what was read of a name, each with the ways to it. */
class Places {
  readonly list: number[] = [];
  readonly ways: Uint8Array;
  private readonly states: State[];

  constructor(states: State[]) {
    this.states = states;
    this.ways = new Uint8Array(states.length);
  }

  add(at: number, given: number): void {
    const state = this.states[at] as State;
    const isStar = state.kind === "star";
    const ways = isStar ? begunWild(given) : given;
    const before = this.ways[at] as number;
    if ((before | ways) === before) return;
    if (before === 0) this.list.push(at);
    this.ways[at] = before | ways;
    // A star may stand for nothing.
    if (isStar) this.add(state.next, ways);
    else if (state.kind === "fork") for (const next of state.options) this.add(next, ways);
  }

  clear(): void {
    for (const at of this.list) this.ways[at] = 0;
    this.list.length = 0;
  }
}

function begunWild(ways: number): number {
  return ways & OPEN ? (ways & ~OPEN) | WILD : ways;
}

function begunNamed(ways: number): number {
  return ways & OPEN ? (ways & ~OPEN) | NAMED : ways;
}

/** @param pattern that `measurePattern` finds nothing wrong with. Compiled when it is first used. */
export function compilePattern(pattern: string): (name: string) => boolean {
  let matcher: Matcher | undefined;
  return (name) => {
    matcher ??= new Matcher(pattern);
    return matcher.matches(name);
  };
}

const END = 0;

class Matcher {
  private readonly states: State[] = [{ kind: "end" }];
  private readonly start: number;
  private now: Places;
  private ahead: Places;

  constructor(pattern: string) {
    const nodes = new PatternReader(pattern).read();
    if (typeof nodes === "string") throw new Error(`${pattern}: ${nodes}`);
    this.start = compile(nodes, this.states, END);
    this.now = new Places(this.states);
    this.ahead = new Places(this.states);
  }

  /** The whole name, or a folder above it. */
  matches(name: string): boolean {
    this.now.clear();
    this.now.add(this.start, OPEN);
    let at = 0;
    for (const char of name) {
      if (char === "/" && this.isMet(name.slice(0, at))) {
        // A folder that matches stands for what is below it, but for what is hidden there.
        if (!isHidden(name, at)) return true;
        this.forgetStars();
      }
      this.read(char);
      if (this.now.list.length === 0) return false;
      at += char.length;
    }
    return this.isMet(name);
  }

  private isMet(name: string): boolean {
    const ways = this.now.ways[END] as number;
    return isDotted(name.slice(name.lastIndexOf("/") + 1)) ? (ways & NAMED) !== 0 : ways !== 0;
  }

  private read(char: string): void {
    const { now, ahead } = this;
    ahead.clear();
    for (const at of now.list) {
      const state = this.states[at] as State;
      if (!fits(state, char)) continue;
      const ways = now.ways[at] as number;
      if (state.kind === "star") ahead.add(at, ways);
      else if (state.kind !== "char") ahead.add(state.next, begunWild(ways));
      else ahead.add(state.next, char === "/" ? OPEN : begunNamed(ways));
    }
    [this.now, this.ahead] = [ahead, now];
  }

  /** What is hidden in a folder that was met is not reached by going on with a `**` either. */
  private forgetStars(): void {
    for (const at of this.now.list) if (this.states[at]?.kind === "star") this.now.ways[at] = 0;
    const kept = this.now.list.filter((at) => this.now.ways[at] !== 0);
    this.now.list.splice(0, Number.POSITIVE_INFINITY, ...kept);
  }
}

/** Whether it is a token that stands for this character, and what comes next with it. */
function fits(token: State, char: string): token is Token & { next: number } {
  switch (token.kind) {
    case "char":
      return token.char === char;
    case "any":
      return char !== "/";
    case "star":
      return token.across || char !== "/";
    case "set":
      return char !== "/" && token.ranges.some(([a, b]) => a <= char && char <= b) !== token.not;
    default:
      return false;
  }
}

function isDotted(segment: string): boolean {
  return /^[_.]/.test(segment);
}

/** What begins with `_` or `.` is not data (`_SUCCESS`, `_bad/`), unless it was named. */
export function isHidden(name: string, from: number): boolean {
  const start =
    from > 0 && name[from - 1] !== "/" && name[from] !== "/" ? name.indexOf("/", from) : from;
  return start >= 0 && /(^|\/)[_.]/.test(name.slice(start));
}
