import { pino } from "pino";
import { MrError, messageOf } from "../../internal/model/errors.ts";
import type { Logger } from "../../internal/model/logger.ts";
import { ConfigError } from "./config.ts";
import { redacted } from "./redaction.ts";

/** A process that `main` starts and that ends in good order when asked. */
export interface ServerProcess {
  /** Resolves when it serves, to what it wants to say of itself. */
  start(): Promise<{ address: string }>;
  close(): Promise<void>;
}

export function createLogger(name: string, level: string): Logger {
  const out = pino.destination(2);
  const stream = { write: (line: string) => void out.write(redacted(line)) };
  return pino({ name, level, base: { name, pid: process.pid } }, stream);
}

/** Whether nobody beyond this machine can reach a port of this host. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}

/**
 * Runs a server until SIGTERM or SIGINT; a second signal ends it at once. A
 * parent that started it over IPC is told where it listens, and is obeyed when
 * it goes: nobody else would end us then.
 *
 * @param parent the pid of a parent to which there is no channel (see hidden_environment.ts).
 */
export async function runProcess(
  open: () => Promise<ServerProcess>,
  parent?: string,
): Promise<void> {
  try {
    const server = await open();
    let closing = false;
    const close = async () => {
      if (closing) process.exit(1);
      closing = true;
      await server.close();
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
    const text = known || hint ? messageOf(error) + hint : (error as Error).stack;
    process.stderr.write(redacted(`${text}\n`));
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
