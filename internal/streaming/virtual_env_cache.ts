import { randomUUID } from "node:crypto";
import { readlinkSync } from "node:fs";
import {
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  utimes,
  writeFile,
} from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { threadId } from "node:worker_threads";
import { MrError } from "../model/errors.ts";

const KEPT_MAX = 10;
/** What was used this recently may be in use still, in milliseconds. */
const IN_USE_MS = 3_600_000;
const POLL_MS = 200;
const HEARTBEAT_MS = 1_000;
/** A lock without a heartbeat for this long is nobody's. */
const STALE_MS = 30_000;

/**
 * Environments by key, shared by all threads and processes that have the same folder:
 *
 *   KEY-ID         an environment, where it was built and stays
 *   KEY.complete   names the ID; its time is when it was last used
 *   KEY.lock       whoever builds or removes it; its time is a heartbeat
 *
 * Every build has a folder of its own, and what is complete is one link. So a builder that
 * was taken for dead and is not harms nobody; the lock only saves work.
 */
export class VirtualEnvCache {
  private readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  /**
   * The folder of an environment; built first where there is none. It stays for an hour
   * after the last call that gave it, at least.
   * @param key hexadecimal.
   * @throws MrError `aborted` by the signal; what `build` throws, to the caller whose build
   * it was: others then try themselves.
   */
  async get(
    key: string,
    build: (into: string) => Promise<void>,
    signal: AbortSignal,
  ): Promise<string> {
    if (!/^[0-9a-f]+$/i.test(key)) throw new MrError("internal", `not a key: ${key}`);
    await mkdir(this.folder, { recursive: true });
    while (true) {
      abortIf(signal);
      const found = await this.use(key);
      if (found !== undefined) return found;
      const lock = await this.lock(key);
      if (lock === undefined) {
        await delay(POLL_MS, undefined, { signal }).catch(() => abortIf(signal));
        continue;
      }
      try {
        const made = (await this.use(key)) ?? (await this.build(key, build));
        // Whatever is the matter with the others, this one is good.
        await this.removeUnused().catch(() => undefined);
        return made;
      } finally {
        await lock.release();
      }
    }
  }

  /** The complete environment, marked as used now. */
  private async use(key: string): Promise<string | undefined> {
    const marker = this.markerOf(key);
    const id = await readFile(marker, "utf8").catch(() => undefined);
    if (id === undefined) return undefined;
    const now = new Date();
    // It may be removed this moment: what could be marked is kept, see `remove`.
    const marked = await utimes(marker, now, now).then(
      () => true,
      () => false,
    );
    const path = this.environmentOf(key, id);
    return marked && (await exists(path)) ? path : undefined;
  }

  private async build(key: string, build: (into: string) => Promise<void>): Promise<string> {
    await rm(this.markerOf(key), { force: true });
    await this.removeRemains(key);
    const id = randomUUID().slice(0, 8);
    const path = this.environmentOf(key, id);
    const draft = join(this.folder, `${key}.${id}`);
    try {
      await build(path);
      await writeFile(draft, id);
      await link(draft, this.markerOf(key));
      return path;
    } catch (error) {
      await rm(path, REMOVE);
      const other = isCode(error, "EEXIST") ? await this.use(key) : undefined;
      if (other === undefined) throw error;
      return other;
    } finally {
      await rm(draft, { force: true });
    }
  }

  /** Keeps the number down, and what builders that died have left. */
  private async removeUnused(): Promise<void> {
    const names = await readdir(this.folder);
    const keys = new Set(names.map((name) => name.split(/[-.]/, 1)[0] ?? ""));
    const complete: { key: string; usedMs: number }[] = [];
    for (const key of keys) {
      const usedMs = await modifiedMs(this.markerOf(key));
      if (usedMs !== undefined) complete.push({ key, usedMs });
      else await this.underLock(key, () => this.removeRemains(key));
    }
    complete.sort((a, b) => a.usedMs - b.usedMs);
    for (const { key } of complete.slice(0, Math.max(0, complete.length - KEPT_MAX)))
      await this.underLock(key, () => this.remove(key));
  }

  /** Removes an environment, unless it was used of late. */
  private async remove(key: string): Promise<void> {
    const marker = this.markerOf(key);
    const aside = join(this.folder, `${key}.${randomUUID().slice(0, 8)}`);
    const isUsed = async (path: string) => ((await modifiedMs(path)) ?? 0) > Date.now() - IN_USE_MS;
    if (await isUsed(marker)) return;
    await rename(marker, aside);
    // Used between the look and the rename.
    if (await isUsed(aside)) return rename(aside, marker);
    await rm(aside, { force: true });
    await this.removeRemains(key);
  }

  /** What there is of a key that is locked, but for a complete environment. */
  private async removeRemains(key: string): Promise<void> {
    const id = await readFile(this.markerOf(key), "utf8").catch(() => undefined);
    const kept = [`${key}.lock`, `${key}.complete`, `${key}-${id}`];
    for (const name of await readdir(this.folder)) {
      const isOfKey = name.startsWith(`${key}-`) || name.startsWith(`${key}.`);
      if (isOfKey && !kept.includes(name)) await rm(join(this.folder, name), REMOVE);
    }
  }

  private async underLock(key: string, action: () => Promise<void>): Promise<void> {
    const lock = await this.lock(key);
    try {
      if (lock !== undefined) await action();
    } finally {
      await lock?.release();
    }
  }

  /** @returns undefined while somebody else has it. */
  private async lock(key: string): Promise<Lock | undefined> {
    const path = join(this.folder, `${key}.lock`);
    return (await Lock.take(path)) ?? ((await Lock.breakStale(path)) ? Lock.take(path) : undefined);
  }

  private markerOf(key: string): string {
    return join(this.folder, `${key}.complete`);
  }

  private environmentOf(key: string, id: string): string {
    return join(this.folder, `${key}-${id}`);
  }
}

/** Where a process number means the same: containers may share a name, but not the numbers. */
const HOST = `${hostname()} ${pidNamespace()}`;

function pidNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

/** What a lock tells of whoever has it. */
interface Holder {
  host: string;
  pid: number;
  /** For whoever reads it. */
  thread: number;
  token: string;
}

/** A file that only one can create. */
class Lock {
  private readonly path: string;
  private readonly token: string;
  private readonly heartbeat: NodeJS.Timeout;

  private constructor(path: string, token: string) {
    this.path = path;
    this.token = token;
    this.heartbeat = setInterval(() => {
      const now = new Date();
      void utimes(path, now, now).catch(() => undefined);
    }, HEARTBEAT_MS);
    this.heartbeat.unref();
  }

  static async take(path: string): Promise<Lock | undefined> {
    const token = randomUUID();
    const holder: Holder = { host: HOST, pid: process.pid, thread: threadId, token };
    try {
      await writeFile(path, JSON.stringify(holder), { flag: "wx" });
      return new Lock(path, token);
    } catch (error) {
      if (isCode(error, "EEXIST")) return undefined;
      throw error;
    }
  }

  /** @returns whether it is gone. */
  static async breakStale(path: string): Promise<boolean> {
    const holder = await holderOf(path);
    if (!(await isStale(path, holder))) return false;
    const aside = `${path}-${randomUUID()}`;
    try {
      await rename(path, aside);
    } catch (error) {
      if (isCode(error, "ENOENT")) return true;
      throw error;
    }
    // Somebody else was faster, and this is the lock of the next holder.
    const isAnother = (await holderOf(aside))?.token !== holder?.token;
    if (isAnother) await link(aside, path).catch(() => undefined);
    await rm(aside, { force: true });
    return !isAnother;
  }

  async release(): Promise<void> {
    clearInterval(this.heartbeat);
    const holder = await holderOf(this.path);
    if (holder?.token === this.token) await rm(this.path, { force: true });
  }
}

async function holderOf(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Holder;
  } catch {
    return undefined;
  }
}

/** By a process that is gone, at once; by a thread that is gone, or on another host, by time. */
async function isStale(path: string, holder: Holder | undefined): Promise<boolean> {
  if (holder?.host === HOST && !isAlive(holder.pid)) return true;
  const beatMs = await modifiedMs(path);
  return beatMs === undefined || Date.now() - beatMs > STALE_MS;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !isCode(error, "ESRCH");
  }
}

const REMOVE = { recursive: true, force: true, maxRetries: 5 };

async function modifiedMs(path: string): Promise<number | undefined> {
  const found = await lstat(path).catch(() => undefined);
  return found?.mtimeMs;
}

async function exists(path: string): Promise<boolean> {
  return (await modifiedMs(path)) !== undefined;
}

function isCode(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}

function abortIf(signal: AbortSignal): void {
  if (signal.aborted)
    throw new MrError("aborted", "nobody waits for the environment any more", {
      cause: signal.reason,
    });
}
