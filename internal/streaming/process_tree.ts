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
  /** Every process seen so far, with its start time: a number may be used again. */
  private readonly seen = new Map<number, string>();

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
    const tree = this.descendants();
    let memoryBytes = 0;
    for (const pid of tree) memoryBytes += residentBytes(pid);
    return { processes: tree.length, memoryBytes };
  }

  /** The memory with what is shared counted once; slower. */
  exactMemoryBytes(): number {
    let sum = 0;
    for (const pid of this.descendants()) sum += proportionalBytes(pid);
    return sum;
  }

  private descendants(): number[] {
    const found: number[] = [];
    const queue = [this.root];
    for (let pid = queue.pop(); pid !== undefined; pid = queue.pop()) {
      const stat = statOf(pid);
      if (stat === undefined) continue;
      found.push(pid);
      this.seen.set(pid, stat.started);
      queue.push(...childrenOf(pid));
    }
    return found;
  }

  /** Ends the group at once: no fork of it escapes. */
  killGroup(): void {
    try {
      process.kill(-this.root, "SIGKILL");
    } catch {
      // All of it is gone.
    }
  }

  /** Ends what has left the group too. Call it while the root's number cannot be another's yet. */
  killAll(): void {
    this.killGroup();
    // One that is being started meanwhile is found by the next look.
    for (let looks = 0; looks < 10; looks += 1) {
      const strays = this.strays();
      if (strays.length === 0) return;
      for (const pid of strays) kill(pid);
    }
  }

  private strays(): number[] {
    const found: number[] = [];
    for (const name of processes()) {
      const pid = Number(name);
      const known = this.seen.get(pid);
      if (known === undefined && this.before.has(name)) continue;
      const stat = statOf(pid);
      if (stat === undefined || stat.state === "Z") continue;
      const isOurs =
        known === stat.started ||
        stat.group === this.root ||
        stat.session === this.root ||
        environmentOf(pid).includes(this.mark);
      if (isOurs) found.push(pid);
    }
    return found;
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

function statOf(pid: number) {
  const stat = read(`/proc/${pid}/stat`);
  // The name, in brackets, may hold anything.
  const [state = "", , group, session, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (state === "") return undefined;
  return { state, group: Number(group), session: Number(session), started: rest[15] ?? "" };
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      read(`/proc/${pid}/task/${thread}/children`).split(" ").filter(Boolean).map(Number),
    );
  } catch {
    return [];
  }
}

const PAGE_BYTES = 4096;

function residentBytes(pid: number): number {
  return Number(read(`/proc/${pid}/statm`).split(" ")[1] ?? 0) * PAGE_BYTES;
}

function proportionalBytes(pid: number): number {
  const match = /^Pss:\s+(\d+) kB/m.exec(read(`/proc/${pid}/smaps_rollup`));
  return match === null ? residentBytes(pid) : Number(match[1]) * 1024;
}

function environmentOf(pid: number): string[] {
  return read(`/proc/${pid}/environ`).split("\0");
}
