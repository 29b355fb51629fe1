import { MrError, messageOf } from "../../internal/model/errors.ts";
import { ConfigError } from "./config.ts";
import { allSaid, say } from "./log_output.ts";
import { hearLibraries } from "./logger.ts";

/** A process that `main` starts and that ends in good order when asked. */
export interface ServerProcess {
  /** Resolves when it serves, to what it wants to say of itself. */
  start(): Promise<{ address: string }>;
  close(): Promise<void>;
}

/**
 * Runs a server until SIGTERM or SIGINT; a second signal ends it at once. A
 * parent that started it over IPC is told where it listens, and is obeyed when
 * it goes: nobody else would end us then.
 *
 * @param name what its log lines call it.
 * @param parent the pid of a parent to which there is no channel (see hidden_environment.ts).
 */
export async function runProcess(
  name: string,
  open: () => Promise<ServerProcess>,
  parent?: string,
): Promise<void> {
  hearLibraries(name);
  // By itself Node would wait for a reader of what it prints then.
  process.on("uncaughtException", (error) => {
    say(`${error.stack ?? error}\n`);
    process.exit(1);
  });
  try {
    const server = await open();
    let closing = false;
    const close = async () => {
      if (closing) process.exit(1);
      closing = true;
      await server.close();
      await allSaid();
      process.exit(0);
    };
    process.on("SIGTERM", close);
    process.on("SIGINT", close);
    process.on("disconnect", close);
    if (parent !== undefined) whenOrphaned(Number(parent), close);
    const { address } = await server.start();
    process.send?.({ kind: "listening", address });
  } catch (error) {
    const known = error instanceof ConfigError || error instanceof MrError;
    const hint = (error as NodeJS.ErrnoException).code === "EADDRINUSE" ? " (is it running?)" : "";
    say(`${known || hint ? messageOf(error) + hint : (error as Error).stack}\n`);
    await allSaid();
    process.exit(1);
  }
}

const LOOK_MS = 500;

function whenOrphaned(parent: number, close: () => Promise<void>): void {
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    void close();
  }, LOOK_MS);
  timer.unref();
}
