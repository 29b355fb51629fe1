import { createHash, type Hash, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { MrError } from "../model/errors.ts";
import { CONTAINER } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { writeFully } from "../shuffle/spill.ts";

/** Limits of what a job ships, in bytes; 0: none. */
export interface FileLimits {
  /** Of one file. */
  oneBytes: number;
  /** Of all that is laid out for a script, archives as they are unpacked. */
  allBytes: number;
}

/** One version of a blob, as it was fetched. */
interface Version {
  path: string;
  digest: string;
  bytes: number;
}

/** What holds no more is read at once: a turn through the thread pool takes longer. */
const SMALL_BYTES = 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;
/** Beyond so many times what one job may ship, what was not used for the longest time goes. */
const KEPT_JOBS = 2;

/**
 * Blobs of dfs-scripts by version, on local disk. They lie where a script could reach them, so each is verified
 * when it is used. No blob is ever in memory as a whole unless it is small.
 */
export class ScriptCache {
  private readonly folder: string;
  private readonly store: ObjectStore;
  private readonly limits: FileLimits;
  /** The longest unused first. */
  private readonly versions = new Map<string, Version>();

  constructor(folder: string, store: ObjectStore, limits: FileLimits) {
    this.folder = folder;
    this.store = store;
    this.limits = limits;
  }

  /**
   * A copy of one version.
   * @param mode of the file that is made.
   * @returns its size in bytes.
   * @throws MrError `changed` when that version is no more, `user` when it is larger than a file may be.
   */
  async copy(
    name: string,
    etag: string | undefined,
    to: string,
    mode: number,
    signal: AbortSignal,
  ) {
    return this.verified(name, etag, signal, async (version) => {
      if (version.bytes <= SMALL_BYTES) {
        const bytes = wholeIfSound(version);
        if (bytes !== undefined) writeFileSync(to, bytes, { mode });
        return bytes === undefined ? undefined : bytes.length;
      }
      const file = await open(to, "w", mode);
      try {
        const isSound = await passOn(version, signal, (chunk) => writeFully(file, chunk));
        return isSound ? version.bytes : undefined;
      } finally {
        await file.close();
      }
    });
  }

  /** The first bytes of one version, `most` at the most; and how many it has in all. */
  async beginning(name: string, etag: string | undefined, most: number, signal: AbortSignal) {
    return this.verified(name, etag, signal, async (version) => {
      const size = version.bytes;
      if (size <= SMALL_BYTES) {
        const whole = wholeIfSound(version);
        return whole && { bytes: whole.subarray(0, most), size };
      }
      const parts: Buffer[] = [];
      let left = most;
      const isSound = await passOn(version, signal, async (chunk) => {
        if (left > 0) parts.push(Buffer.from(chunk.subarray(0, left)));
        left -= chunk.length;
      });
      return isSound ? { bytes: Buffer.concat(parts), size } : undefined;
    });
  }

  /** SHA-256 of one version, in hexadecimal. */
  async digest(name: string, etag: string | undefined, signal: AbortSignal): Promise<string> {
    return (await this.version(name, etag, signal)).digest;
  }

  /** @param use undefined: it is not what was fetched. */
  private async verified<T>(
    name: string,
    etag: string | undefined,
    signal: AbortSignal,
    use: (version: Version) => Promise<T | undefined>,
  ): Promise<T> {
    const used = await use(await this.version(name, etag, signal));
    if (used !== undefined) return used;
    this.versions.delete(keyOf(name, etag));
    const again = await use(await this.version(name, etag, signal));
    if (again === undefined) throw new MrError("corrupt", `${name} changes on this worker's disk`);
    return again;
  }

  private async version(
    name: string,
    etag: string | undefined,
    signal: AbortSignal,
  ): Promise<Version> {
    if (etag === undefined)
      throw new MrError("internal", `no version of ${name} came with the task`);
    const key = keyOf(name, etag);
    const known = this.versions.get(key) ?? (await this.fetch(name, etag, signal));
    this.versions.delete(key);
    this.versions.set(key, known);
    await this.removeOld(key);
    return known;
  }

  private async fetch(name: string, etag: string, signal: AbortSignal): Promise<Version> {
    await mkdir(this.folder, { recursive: true });
    const fresh = join(this.folder, `.${randomUUID()}`);
    const path = join(this.folder, digestOf(keyOf(name, etag)));
    try {
      const { digest, bytes } = await this.download(name, etag, fresh, signal);
      await rename(fresh, path);
      return { path, digest, bytes };
    } catch (error) {
      await rm(fresh, { force: true });
      throw error;
    }
  }

  private async download(name: string, etag: string, into: string, signal: AbortSignal) {
    const hash = createHash("sha256");
    let bytes = 0;
    const file = await open(into, "wx", 0o600);
    try {
      for await (const chunk of this.store.read(CONTAINER.scripts, name, { etag, signal })) {
        bytes += chunk.length;
        this.checkSize(name, bytes);
        hash.update(chunk);
        await writeFully(file, chunk);
      }
    } catch (error) {
      const gone = MrError.is(error, "changed") || MrError.is(error, "not_found");
      if (!gone) throw error;
      const message = `${CONTAINER.scripts}/${name} was changed or deleted while the job ran`;
      throw new MrError("changed", message, { cause: error });
    } finally {
      await file.close();
    }
    return { digest: hash.digest("hex"), bytes };
  }

  private checkSize(name: string, bytes: number): void {
    const { oneBytes } = this.limits;
    if (oneBytes > 0 && bytes > oneBytes)
      throw new MrError(
        "user",
        `${CONTAINER.scripts}/${name} is larger than ${megabytes(oneBytes)}, the most that a file of a job may have (MR_FILE_MB)`,
      );
  }

  /** What others of this worker still use, they fetch again. */
  private async removeOld(used: string): Promise<void> {
    const most = KEPT_JOBS * this.limits.allBytes;
    let total = 0;
    for (const { bytes } of this.versions.values()) total += bytes;
    for (const [key, { path, bytes }] of this.versions) {
      if (most === 0 || total <= most || key === used) return;
      this.versions.delete(key);
      total -= bytes;
      await rm(path, { force: true });
    }
  }
}

function keyOf(name: string, etag: string | undefined): string {
  return `${name} ${etag}`;
}

function wholeIfSound({ path, digest }: Version): Buffer | undefined {
  try {
    const bytes = readFileSync(path);
    return digestOf(bytes) === digest ? bytes : undefined;
  } catch {
    return undefined;
  }
}

/** @returns whether it was what was fetched: known only when all of it was taken. */
async function passOn(
  { path, digest }: Version,
  signal: AbortSignal,
  take: (chunk: Buffer) => Promise<void>,
): Promise<boolean> {
  const file = await open(path).catch(() => undefined);
  if (file === undefined) return false;
  const hash: Hash = createHash("sha256");
  const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  try {
    while (true) {
      signal.throwIfAborted();
      const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES);
      if (bytesRead === 0) return hash.digest("hex") === digest;
      const chunk = buffer.subarray(0, bytesRead);
      hash.update(chunk);
      await take(chunk);
    }
  } finally {
    await file.close();
  }
}

/** SHA-256, in hexadecimal. */
export function digestOf(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1_048_576)} MB`;
}
