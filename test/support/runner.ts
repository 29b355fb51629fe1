import { chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createLogger } from "../../cmd/common/logger.ts";
import { operatorsPython } from "../../internal/streaming/command.ts";
import { RUNNER_ARGUMENTS, Runner, type RunnerAbout } from "../../internal/streaming/runner.ts";
import type { RunnerAddress } from "../../internal/streaming/runner_connection.ts";
import type { ScriptPlace } from "../../internal/streaming/script_process.ts";
import { ServerProcess, scratchFolder } from "./processes.ts";

export interface TestRunner extends AsyncDisposable {
  address: RunnerAddress;
  /** Where its scripts live. */
  folder: string;
}

/** A runner of this process, as a worker has one by itself. */
export async function testRunner(): Promise<TestRunner> {
  const folder = await scratchFolder("runner");
  const scripts = join(folder.path, "scripts");
  const runner = await Runner.open({
    socket: undefined,
    folder: scripts,
    logger: createLogger("test", "silent"),
  });
  return {
    address: runner.address,
    folder: scripts,
    [Symbol.asyncDispose]: async () => {
      await runner[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

export interface ClosedRunner extends TestRunner {
  about: RunnerAbout;
  /** Of what was started; where there is no prefix, the runner itself. */
  pid: number;
  /** How it ended, when it has. */
  ended: () => Promise<unknown>;
}

export interface ClosedRunnerOptions {
  /** What starts it: as another user, or in other namespaces. */
  prefix?: string[];
  /** The user that it becomes. */
  uid?: number;
  graceMs?: number;
}

/** A runner that keeps scripts to the strictest, as a container has one; here they are this user, as a rule. */
export async function closedRunner(options: ClosedRunnerOptions = {}): Promise<ClosedRunner> {
  const { prefix = [], uid, graceMs = 0 } = options;
  const folder = await scratchFolder("runner");
  const socket = join(folder.path, "socket");
  const scripts = join(folder.path, "scripts");
  mkdirSync(scripts);
  if (uid !== undefined) for (const path of [folder.path, scripts]) chownSync(path, uid, uid);
  // Another user has no way to a python in somebody's home.
  const python = prefix.length > 0 ? "/usr/bin/python3" : await operatorsPython();
  const [command = "", ...argv] = [...prefix, python ?? "python3", ...RUNNER_ARGUMENTS];
  const places = ["--listen", socket, "--folder", scripts, "--closed"];
  const server = new ServerProcess(command, [...argv, ...places]);
  const logger = createLogger("test", "silent");
  const runner = await Runner.open({ socket, folder: scripts, graceMs, logger });
  return {
    address: runner.address,
    about: runner.about,
    folder: scripts,
    pid: server.child.pid ?? 0,
    ended: () => server.exited(),
    [Symbol.asyncDispose]: async () => {
      await runner[Symbol.asyncDispose]();
      // It ends with its worker.
      await server.exited().catch(() => server.stop("SIGKILL"));
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Of a script that needs no files. */
export function placeOf(attempt: string, more: Partial<ScriptPlace> = {}): ScriptPlace {
  return {
    attempt,
    layout: undefined,
    cwd: "/",
    network: false,
    reads: [],
    writes: [],
    ...more,
  };
}
