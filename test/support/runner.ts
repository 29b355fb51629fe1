import { mkdirSync } from "node:fs";
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

/** A runner that keeps scripts to the strictest, as a container has one; here they are this user all the same. */
export async function closedRunner(): Promise<TestRunner & { about: RunnerAbout; pid: number }> {
  const folder = await scratchFolder("runner");
  const socket = join(folder.path, "socket");
  const scripts = join(folder.path, "scripts");
  mkdirSync(scripts);
  const argv = [...RUNNER_ARGUMENTS, "--listen", socket, "--folder", scripts, "--closed"];
  const server = new ServerProcess((await operatorsPython()) ?? "python3", argv);
  const logger = createLogger("test", "silent");
  const runner = await Runner.open({ socket, folder: scripts, logger });
  return {
    address: runner.address,
    about: runner.about,
    folder: scripts,
    pid: server.child.pid ?? 0,
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
