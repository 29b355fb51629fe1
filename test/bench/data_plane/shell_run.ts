import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { atExit } from "../../support/processes.ts";
import { PYTHON } from "./settings.ts";

const MEASURE = join(import.meta.dirname, "measure.py");
const SAID_MAX = 2_000;

export interface ShellReport {
  wallMs: number;
  /** User and system time of everything that ran. */
  cpuMs: number;
  /** Of the largest process. */
  peakBytes: number;
}

/** Runs a bash script in a folder, which is its TMPDIR too; all of it must succeed. */
export async function runShell(script: string, cwd: string): Promise<ShellReport> {
  const child = spawn(PYTHON, [MEASURE, script], {
    cwd,
    env: { ...process.env, TMPDIR: cwd },
    stdio: ["ignore", "ignore", "pipe", "pipe"],
    // A process group of its own, so that all of it can be ended.
    detached: true,
  });
  const forget = atExit(() => {
    if (child.pid !== undefined) endGroup(child.pid);
  });
  try {
    const ended = new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    const [, , stderr, report] = child.stdio;
    const [said, json] = await Promise.all([readAll(stderr), readAll(report), ended]);
    const { code, ...figures } = json === "" ? { code: -1 } : JSON.parse(json);
    if (code !== 0) throw new Error(`${script}\nended with ${code}: ${said.slice(-SAID_MAX)}`);
    return figures as ShellReport;
  } finally {
    forget();
  }
}

function readAll(stream: unknown): Promise<string> {
  return text(stream as AsyncIterable<Buffer>);
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
