import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { atExit } from "../support/processes.ts";

/** What one run of a contestant took. Seconds, and megabytes of the largest process. */
export interface Measured {
  wallS: number;
  /** Of the user's scripts, or of all there is where it is not ours. */
  cpuS: number;
  /** Of our own processes. */
  ownS: number;
  peakMb: number;
  /** Of the result, as the case wants it; undefined: none was made. */
  digest: string | undefined;
}

const TICKS_PER_S = 100;

/** Waits for the command, and says what it and all it started took. */
const WRAPPER = `import json, resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(["bash", "-c", sys.argv[1]])
took = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, time.monotonic() - start, took.ru_utime + took.ru_stime, took.ru_maxrss]))`;

/** The environment of every contestant: no unbuffered Python, plain sorting. */
export function plainEnv(): NodeJS.ProcessEnv {
  const { PYTHONUNBUFFERED: _, ...env } = process.env;
  return { ...env, LC_ALL: "C" };
}

/** @throws Error with what it said, unless it exits with 0. */
export async function measureShell(script: string, cwd: string): Promise<Measured> {
  const child = spawn("/usr/bin/python3", ["-c", WRAPPER, `set -eo pipefail\n${script}`], {
    cwd,
    env: plainEnv(),
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  // Its own group: with Ctrl-C all of it ends.
  const keep = atExit(() => {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  });
  let out = "";
  let errors = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  await new Promise((resolve) => child.once("close", resolve));
  keep();
  const [code, wallS, cpuS, peakKb] = JSON.parse(out.trim().split("\n").at(-1) ?? "[1]");
  if (code !== 0) throw new Error(`a contestant failed: ${errors.slice(-2_000)}\n${script}`);
  return { wallS, cpuS, ownS: 0, peakMb: peakKb / 1024, digest: undefined };
}

interface Usage {
  own: number;
  children: number;
}

function usageOf(pid: string): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(11, 15);
  return { own: (user + system) / TICKS_PER_S, children: (childUser + childSystem) / TICKS_PER_S };
}

/** The processes of a cluster: those that have its folder in their environment. */
export function processesOf(folder: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return (
        /cmd\/(proxy|master|worker)\//.test(readFileSync(`/proc/${pid}/cmdline`, "latin1")) &&
        readFileSync(`/proc/${pid}/environ`, "latin1").includes(folder)
      );
    } catch {
      return false;
    }
  });
}

/** CPU and memory of a cluster's processes while something runs. */
export async function measureCluster(
  pids: string[],
  run: () => Promise<void>,
): Promise<Omit<Measured, "digest">> {
  for (const pid of pids) resetPeak(pid);
  const before = pids.map(usageOf);
  const startMs = performance.now();
  await run();
  const wallS = (performance.now() - startMs) / 1_000;
  const after = pids.map(usageOf);
  const sum = (of: (usage: Usage) => number) =>
    after.reduce((total, usage, i) => total + of(usage) - of(before[i] as Usage), 0);
  return {
    wallS,
    cpuS: sum(({ children }) => children),
    ownS: sum(({ own }) => own),
    peakMb: Math.max(...pids.map(peakMb)),
  };
}

function resetPeak(pid: string): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // Then the peak is that of all its life.
  }
}

function peakMb(pid: string): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}
