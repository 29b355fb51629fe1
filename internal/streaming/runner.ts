import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { MrError, messageOf } from "../model/errors.ts";
import type { Logger } from "../model/logger.ts";
import { operatorsPython, SCRIPT_PATH } from "./command.ts";
import { linesOf, newNumber, openConnection, type RunnerAddress } from "./runner_connection.ts";

/** Arguments of a python3 that make it a runner; its own options follow. */
export const RUNNER_ARGUMENTS = [
  ...["-I", "-S", "-B", "-X", "utf8"],
  fileURLToPath(new URL("../runner", import.meta.url)),
];

/** What a runner says of itself. */
const aboutSchema = z.object({
  /** Where scripts live. */
  folder: z.string(),
  /** Whether scripts are kept to the strictest that the kernel offers. */
  closed: z.boolean(),
  /** The version of Landlock that keeps scripts from one another's files; 0: nothing does. */
  landlock: z.int(),
  /** For all scripts together. */
  memoryBytes: z.int(),
  /** As whom scripts run, among the runner's own users. */
  uid: z.int(),
  pid: z.int(),
});
export type RunnerAbout = z.infer<typeof aboutSchema>;

/** A runner that is not there is asked for again after so long, in milliseconds. */
const RETRY_MS = 50;
/** To begin with it may take so long: its container starts when it does. */
const PATIENCE_MS = 120_000;

export interface RunnerOptions {
  /** Of a runner that somebody else has started; undefined: one of our own, which is a child of this process. */
  socket: string | undefined;
  /** Of a child: where its scripts live. */
  folder: string;
  /** How long the worker goes on when all are told to end, in milliseconds; default 0. */
  graceMs?: number;
  logger: Logger;
}

/**
 * The worker's hold on its runner (`internal/runner`): as long as it stands the runner is ours, and ends
 * all scripts with it. One that has ended is taken hold of again when it is back, with the same
 * secret, so that those who start scripts need not know.
 */
export class Runner implements AsyncDisposable {
  readonly address: RunnerAddress;
  readonly about: RunnerAbout;
  private readonly hold: Hold;

  /** @throws MrError `unavailable` when there is none to be had. */
  static async open(options: RunnerOptions): Promise<Runner> {
    const hold = new Hold(options);
    try {
      return new Runner(hold, await hold.first());
    } catch (error) {
      await hold.release();
      throw error;
    }
  }

  private constructor(hold: Hold, about: RunnerAbout) {
    this.hold = hold;
    this.about = about;
    const { socket, secret } = hold;
    this.address = { socket, secret, folder: about.folder };
  }

  /** Ends the scripts; and the runner. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.hold.release();
  }
}

class Hold {
  readonly socket: string;
  readonly secret = randomBytes(32).toString("hex");
  private readonly options: RunnerOptions;
  private readonly ownFolder: string | undefined;
  private readonly known = Promise.withResolvers<RunnerAbout>();
  private child: ChildProcess | undefined;
  private connection: Socket | undefined;
  private released = false;
  private readonly holding: Promise<void>;

  constructor(options: RunnerOptions) {
    this.options = options;
    // A socket's path is short, so it is not in the scratch folder; only this user can enter its folder.
    // It is made just before the runner starts, which removes it at its end.
    const name = `mr-runner-${randomBytes(8).toString("hex")}`;
    if (options.socket === undefined) this.ownFolder = join(tmpdir(), name);
    this.socket = options.socket ?? join(this.ownFolder ?? "", "socket");
    this.known.promise.catch(() => undefined);
    this.holding = this.hold();
  }

  async first(): Promise<RunnerAbout> {
    return this.known.promise;
  }

  private async hold(): Promise<void> {
    const { logger } = this.options;
    const startMs = performance.now();
    let isKnown = false;
    while (!this.released) {
      try {
        if (this.ownFolder !== undefined) await this.startChild(this.ownFolder);
        const lines = this.hello();
        const about = aboutSchema.parse(JSON.parse((await lines.next()).value ?? ""));
        if (isKnown) logger.warn({ runner: about.pid }, "the runner is back");
        isKnown = true;
        this.known.resolve(about);
        await lines.next().catch(() => undefined);
        if (!this.released) logger.warn({}, "the runner has ended; its scripts with it");
      } catch (cause) {
        const hopeless = this.ownFolder !== undefined && !this.isChildAlive();
        if (!isKnown && (hopeless || performance.now() - startMs > PATIENCE_MS)) {
          const why = hopeless ? "it cannot be started" : `none answers at ${this.socket}`;
          const message = `no runner, which starts the scripts: ${why}: ${messageOf(cause)}`;
          this.known.reject(new MrError("unavailable", message, { cause }));
          return;
        }
      }
      if (!this.released) await delay(RETRY_MS);
    }
  }

  private async startChild(folder: string): Promise<void> {
    if (this.isChildAlive()) return;
    const python = (await operatorsPython()) ?? "python3";
    if (this.released) return;
    mkdirSync(this.options.folder, { recursive: true });
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { socket } = this;
    const places = ["--listen", socket, "--folder", this.options.folder];
    const argv = [...RUNNER_ARGUMENTS, "--child", ...places];
    const env = { PATH: SCRIPT_PATH, LANG: "C.UTF-8" };
    // Out of our process group: Ctrl-C is for the worker, which ends it.
    const child = spawn(python, argv, {
      env,
      detached: true,
      stdio: ["pipe", "ignore", "inherit"],
    });
    child.on("error", (error) => this.options.logger.error({ error: error.message }, "no runner"));
    child.stdin?.on("error", () => undefined);
    this.child = child;
  }

  private isChildAlive(): boolean {
    const { child } = this;
    return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** One line about the runner; then none until it ends. */
  private hello(): AsyncGenerator<string> {
    const connection = openConnection(this, "hello", newNumber());
    connection.on("error", () => undefined);
    const graceSeconds = (this.options.graceMs ?? 0) / 1_000;
    connection.write(`${JSON.stringify({ graceSeconds })}\n`);
    this.connection = connection;
    return linesOf(connection);
  }

  async release(): Promise<void> {
    this.released = true;
    this.connection?.destroy();
    this.child?.stdin?.destroy();
    await this.holding;
    if (this.isChildAlive()) await new Promise((resolve) => this.child?.once("exit", resolve));
    if (this.ownFolder !== undefined) rmSync(this.ownFolder, { recursive: true, force: true });
  }
}
