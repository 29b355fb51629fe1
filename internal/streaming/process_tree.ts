import { readdirSync, readFileSync, writeFileSync } from "node:fs";

/**
 * What a script has started, as /proc tells. A process group ends with one signal,
 * but a daemon leaves its group, its session and its parent; it keeps its
 * environment, in which every attempt has a mark of its own.
 *
 * Where there is no /proc, only the group is known.
 */
export class ProcessTree {
  private readonly root: number;
  private readonly mark: string;
  /** Processes there before the script: none of them is its. */
  private readonly before: Set<string>;
  /** Every new process seen so far, with its start time: a number may be used again. */
  private readonly seen = new Map<number, { started: string; parent: number; isOurs: boolean }>();
  private over = false;

  /**
   * @param root the script, leader of its own process group.
   * @param mark NAME=VALUE in its environment and in no other attempt's.
   * @param before what `processes()` gave before it was started.
   */
  constructor(root: number, mark: string, before: Set<string>) {
    this.root = root;
    this.mark = mark;
    this.before = before;
    offerToOomKiller(root);
  }

  /** How many processes there are, and the memory they have, in bytes. */
  look(): { processes: number; memoryBytes: number } {
    const ours = this.ours();
    let memoryBytes = 0;
    for (const pid of ours) memoryBytes += residentBytes(pid);
    return { processes: ours.length, memoryBytes };
  }

  /** The memory with what is shared counted once; slower. */
  exactMemoryBytes(): number {
    let sum = 0;
    for (const pid of this.ours()) sum += proportionalBytes(pid);
    return sum;
  }

  /** Ends the group at once: no fork of it escapes. */
  killGroup(): void {
    // Once reaped, the number may become somebody else's.
    if (this.over) return;
    try {
      process.kill(-this.root, "SIGKILL");
    } catch {
      // All of it is gone.
    }
  }

  /** The root was reaped: ends whatever it leaves behind. */
  killAll(): void {
    this.killGroup();
    this.over = true;
    // One that is being started meanwhile is found by the next look.
    for (let looks = 0; looks < 10; looks += 1) {
      const strays = this.ours().filter((pid) => statOf(pid)?.state !== "Z");
      if (strays.length === 0) return;
      for (const pid of strays) kill(pid);
    }
  }

  /** Everything that is there now and is the script's, whoever its parent has become. */
  private ours(): number[] {
    const found: number[] = [];
    const now = processes();
    for (const name of this.before) if (!now.has(name)) this.before.delete(name);
    for (const pid of this.seen.keys()) if (!now.has(String(pid))) this.seen.delete(pid);
    for (const name of now) {
      if (this.before.has(name)) continue;
      const pid = Number(name);
      const stat = statOf(pid);
      if (stat === undefined) continue;
      const known = this.seen.get(pid);
      if (known?.started !== stat.started || known.parent !== stat.parent) this.judge(pid, stat);
      if (this.seen.get(pid)?.isOurs === true) found.push(pid);
    }
    return found;
  }

  /** Once ours, always ours; what is not may become so when it has run our script's program. */
  private judge(pid: number, { started, parent, group, session }: Stat): void {
    const before = this.seen.get(pid);
    const isOurs =
      (before?.started === started && before.isOurs) ||
      pid === this.root ||
      group === this.root ||
      session === this.root ||
      this.seen.get(parent)?.isOurs === true ||
      environmentOf(pid).includes(this.mark);
    this.seen.set(pid, { started, parent, isOurs });
  }
}

/** The numbers of all processes. */
export function processes(): Set<string> {
  try {
    return new Set(readdirSync("/proc").filter((name) => /^\d+$/.test(name)));
  } catch {
    return new Set();
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone.
  }
}

/** When memory runs out, the script goes first, not its worker. */
function offerToOomKiller(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, "1000");
  } catch {
    // Not on this system.
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

interface Stat {
  state: string;
  parent: number;
  group: number;
  session: number;
  started: string;
}

function statOf(pid: number): Stat | undefined {
  const stat = read(`/proc/${pid}/stat`);
  // The name, in brackets, may hold anything.
  const [state = "", parent, group, session, ...rest] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ");
  if (state === "") return undefined;
  const numbers = { parent: Number(parent), group: Number(group), session: Number(session) };
  return { state, ...numbers, started: rest[15] ?? "" };
}

function residentBytes(pid: number): number {
  return kilobytes(read(`/proc/${pid}/status`), "VmRSS") ?? 0;
}

/** In bytes. */
function kilobytes(text: string, name: string): number | undefined {
  const match = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text);
  return match === null ? undefined : Number(match[1]) * 1024;
}

function proportionalBytes(pid: number): number {
  return kilobytes(read(`/proc/${pid}/smaps_rollup`), "Pss") ?? residentBytes(pid);
}

function environmentOf(pid: number): string[] {
  return read(`/proc/${pid}/environ`).split("\0");
}
