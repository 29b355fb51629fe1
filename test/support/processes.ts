import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reservePort } from "../../cmd/mr/reserved_port.ts";

/** A port of the loopback interface, this process's own until it ends. */
export async function freePort(): Promise<number> {
  return (await reservePort()).number;
}

/** What must not outlive this process, should it end before its scopes do. */
const leftovers = new Set<() => void>();
process.on("exit", () => {
  for (const end of [...leftovers].reverse()) end();
});

/** Ends something even if this process ends before its time; @returns what calls that off. */
export function atExit(end: () => void): () => void {
  leftovers.add(end);
  return () => leftovers.delete(end);
}

/** A folder that is removed at the end of its scope. */
export async function scratchFolder(name: string): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), `mr-test-${name}-`));
  const options = { recursive: true, force: true, maxRetries: 5 };
  const keep = atExit(() => rmSync(path, options));
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await rm(path, options);
      keep();
    },
  };
}

/** Waits for a condition, with a deadline that names what was waited for. */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  deadlineMs = 30_000,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  while (true) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A server process of a test: started by it, ended by its pid. */
export class ServerProcess {
  readonly child: ChildProcess;
  private output = "";

  constructor(command: string, args: string[], env: NodeJS.ProcessEnv = process.env) {
    this.child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env });
    const keep = (chunk: Buffer) => {
      this.output = (this.output + chunk.toString()).slice(-20_000);
    };
    this.child.stdout?.on("data", keep);
    this.child.stderr?.on("data", keep);
    this.child.once(
      "exit",
      atExit(() => this.child.kill("SIGKILL")),
    );
    this.child.on("error", (error) => keep(Buffer.from(`${error.message}\n`)));
  }

  get said(): string {
    return this.output;
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null && !!this.child.pid;
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  /** SIGSTOP, and waits until it has taken effect: on a busy machine that may take a moment. */
  async freeze(): Promise<void> {
    this.signal("SIGSTOP");
    await until(`${this.child.spawnfile} standing still`, () => {
      const stat = readFileSync(`/proc/${this.child.pid}/stat`, "latin1");
      return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
    });
  }

  async exited(deadlineMs = 30_000): Promise<number | string> {
    await until(`exit of ${this.child.spawnfile}\n${this.output}`, () => !this.running, deadlineMs);
    return this.child.exitCode ?? this.child.signalCode ?? -1;
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    if (!this.running) return;
    this.child.kill(signal);
    try {
      await this.exited(15_000);
    } catch {
      this.child.kill("SIGKILL");
      await this.exited();
    }
  }
}
