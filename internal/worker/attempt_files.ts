import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isArchive, unpackArchive } from "../codec/unpack.ts";
import { MrError } from "../model/errors.ts";
import type { AttemptId } from "../model/ids.ts";
import { CONTAINER } from "../model/names.ts";
import { type ObjectStore, readAll } from "../model/object_store.ts";
import { VirtualEnvCache } from "../streaming/virtual_env_cache.ts";

/**
 * A worker's local disk. What scripts may write to and what is ours are apart, so that a
 * script that strays into its parent folder finds nothing but its own:
 *
 *   scripts/ATTEMPT/{work,tmp}   a script's working directory and its TMPDIR (a combiner's: tmp-combine)
 *   own/spill/ATTEMPT            spilled runs, checksummed
 *   own/venv                     Python environments by what they hold
 *   own/cache                    scripts and files by version, checksummed
 *
 * What is done for every attempt is done at once, not by the thread pool: the local disk answers in
 * microseconds, a turn through the pool takes ten times as long.
 */
export class Scratch {
  private readonly root: string;
  private readonly store: ObjectStore;
  /** Of what was fetched: the cache lies where a script could reach it. */
  private readonly digests = new Map<string, string>();
  /** Of all threads of the worker. */
  readonly virtualEnvs: VirtualEnvCache;

  constructor(root: string, store: ObjectStore) {
    this.root = root;
    this.store = store;
    this.virtualEnvs = new VirtualEnvCache(join(root, "own", "venv"));
  }

  openAttempt(attempt: AttemptId): AttemptFolder {
    const name = attempt.replaceAll("/", "_");
    const script = join(this.root, "scripts", name);
    const folder = {
      script,
      work: join(script, "work"),
      temp: join(script, "tmp"),
      combinerTemp: join(script, "tmp-combine"),
      spill: join(this.root, "own", "spill", name),
    };
    for (const path of [...scriptFolders(folder), folder.spill])
      mkdirSync(path, { recursive: true });
    return folder;
  }

  /** Empties the script's side: what an earlier run of it left behind is not there for the next. */
  renewScript(folder: AttemptFolder): void {
    rmSync(folder.script, { recursive: true, force: true, maxRetries: 3 });
    for (const path of scriptFolders(folder)) mkdirSync(path, { recursive: true });
  }

  removeAttempt(folder: AttemptFolder): void {
    for (const path of [folder.script, folder.spill])
      rmSync(path, { recursive: true, force: true, maxRetries: 3 });
  }

  /**
   * Puts a blob of dfs-scripts into the working directory under the name `link`, executable,
   * in the version that the job was accepted with; an archive as a folder of that name.
   * @throws MrError `changed` or `not_found` when that version is no more.
   */
  async place(
    name: string,
    etag: string | undefined,
    link: string,
    folder: AttemptFolder,
    signal: AbortSignal,
  ): Promise<void> {
    const bytes = await this.read(name, etag, signal);
    const path = join(folder.work, link);
    // A copy: the script may write to its own file.
    if (!isArchive(name)) return writeFileSync(path, bytes, { mode: 0o755 });
    const packed = join(folder.spill, `archive-${randomUUID()}`);
    await writeFile(packed, bytes, { mode: 0o600 });
    await mkdir(path);
    await unpackArchive(packed, name, path, UNPACK_LIMITS);
    await rm(packed);
  }

  /** A blob of dfs-scripts in one version, from the cache where it is whole. */
  async read(name: string, etag: string | undefined, signal: AbortSignal): Promise<Uint8Array> {
    if (etag === undefined)
      throw new MrError("internal", `no version of ${name} came with the task`);
    const id = digestOf(`${name} ${etag}`);
    const path = join(this.root, "own", "cache", id);
    if (this.digests.has(id)) {
      const cached = readIfThere(path);
      if (cached !== undefined && digestOf(cached) === this.digests.get(id)) return cached;
    }
    const bytes = await this.download(name, etag, signal);
    this.digests.set(id, digestOf(bytes));
    const fresh = join(this.root, "own", "cache", `.${randomUUID()}`);
    await mkdir(join(this.root, "own", "cache"), { recursive: true });
    await writeFile(fresh, bytes, { mode: 0o600 });
    await rename(fresh, path);
    return bytes;
  }

  private async download(name: string, etag: string, signal: AbortSignal): Promise<Uint8Array> {
    try {
      return await readAll(this.store.read(CONTAINER.scripts, name, { etag, signal }));
    } catch (error) {
      const gone = MrError.is(error, "changed") || MrError.is(error, "not_found");
      if (!gone) throw error;
      const message = `${CONTAINER.scripts}/${name} was changed or deleted while the job ran`;
      throw new MrError("changed", message, { cause: error });
    }
  }
}

/** Of one archive: more is a mistake, or an attack. */
const UNPACK_LIMITS = { bytes: 4 * 1024 ** 3, entries: 200_000 };

export interface AttemptFolder {
  /** The script's side; holds `work` and `temp`. */
  script: string;
  work: string;
  temp: string;
  /** TMPDIR of combiners: what runs beside the mapper is told apart by it. */
  combinerTemp: string;
  spill: string;
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

function scriptFolders({ work, temp, combinerTemp }: AttemptFolder): string[] {
  return [work, temp, combinerTemp];
}

function digestOf(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
