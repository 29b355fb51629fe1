import { accessSync, constants, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";

/** Processors of our own: which, and how busy they are with other people's work. */

const FIRST = 2;
const TICK_MS = 10;

/** Those that this process may run on. */
export function allowedCpus(): number[] {
  const status = readFileSync("/proc/self/status", "latin1");
  return parseCpus(/^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? "0");
}

/** `0,2-3` as [0, 2, 3]. */
export function parseCpus(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const [from = Number.NaN, to = from] = part.split("-").map(Number);
    if (part === "" || !(to >= from)) throw new Error(`${list}: no list of processors, as 0,2-3`);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

/**
 * Keeps this process, and all that it will start, to some processors: unless it is there already, it
 * starts itself again in place, under taskset, and does not return.
 * @param list by default the first two that it may run on.
 * @returns those that it runs on.
 */
export function pinTo(list: string | undefined): number[] {
  const allowed = allowedCpus();
  const wanted = list === undefined ? allowed.slice(0, FIRST) : parseCpus(list);
  if (wanted.join() === allowed.join()) return allowed;
  const taskset = inPath("taskset");
  if (taskset === undefined || process.execve === undefined) {
    process.stderr.write("bench: no taskset here; it runs on all processors\n");
    return allowed;
  }
  const argv = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  process.removeAllListeners("warning"); // The call is announced as experimental.
  process.execve(taskset, [taskset, "-c", wanted.join(), ...argv], process.env);
  return wanted; // Not reached.
}

function inPath(name: string): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What a process has taken of a processor so far, in milliseconds. */
export interface CpuMs {
  own: number;
  /** Of its children that have ended and were waited for, and theirs. */
  children: number;
}

/** What /proc says of a process after its name: its state, its parent, ... */
export function statOf(pid: number | string): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

export function cpuOf(pid: number | "self"): CpuMs {
  const fields = statOf(pid);
  const ms = (from: number) => (Number(fields[from]) + Number(fields[from + 1])) * TICK_MS;
  return { own: ms(11), children: ms(13) };
}

/** The time in which processors were busy so far, whoever with. Interrupts are nobody's. */
function busyMs(cpus: number[]): number {
  const lines = readFileSync("/proc/stat", "latin1").split("\n");
  let ticks = 0;
  for (const cpu of cpus) {
    const line = lines.find((text) => text.startsWith(`cpu${cpu} `)) ?? "";
    const [user = 0, nice = 0, system = 0, , , , , steal = 0] = line
      .split(/\s+/)
      .slice(1)
      .map(Number);
    ticks += user + nice + system + steal;
  }
  return ticks * TICK_MS;
}

/** How much of some processors others than we took since it was made. */
export class OthersWatch {
  private readonly cpus: number[];
  private readonly pids: number[];
  private readonly startMs = performance.now();
  private readonly startOthersMs: number;

  /** @param pids our processes beside this one; what they and this one have started counts as ours. */
  constructor(cpus: number[], pids: number[]) {
    this.cpus = cpus;
    this.pids = pids;
    this.startOthersMs = this.othersMs();
  }

  private othersMs(): number {
    let ours = 0;
    for (const pid of ["self" as const, ...this.pids]) {
      const { own, children } = cpuOf(pid);
      ours += own + children;
    }
    return busyMs(this.cpus) - ours;
  }

  /** In processors: 0.15 is 150 ms in every second. */
  cores(): number {
    const tookMs = performance.now() - this.startMs;
    return Math.max(0, (this.othersMs() - this.startOthersMs) / tookMs);
  }
}
