import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isArchive, unpackArchive } from "../codec/unpack.ts";
import { MrError } from "../model/errors.ts";
import type { AttemptId } from "../model/ids.ts";
import { CONTAINER } from "../model/names.ts";
import { type ObjectStore, readAll } from "../model/object_store.ts";
import { newNumber, type RunnerAddress, RunnerRequest } from "../streaming/runner_connection.ts";
import type { ScriptLayout } from "../streaming/script_process.ts";

/**
 * A worker's local disk:
 *
 *   layouts/ATTEMPT    what is to be a script's working directory: its runner takes it from here
 *   own/spill/ATTEMPT  spilled runs, checksummed
 *   own/cache          scripts and files by version, checksummed
 *
 * and, in the runner's folder, which may be out of our sight (`internal/runner`):
 *
 *   ATTEMPT/{work,tmp} a script's working directory and its TMPDIR (a combiner's: tmp-combine)
 *   environments       Python environments by what they hold
 *
 * Nothing that a script has written is ever read by us.
 *
 * What is done for every attempt is done at once, not by the thread pool: the local disk answers in
 * microseconds, a turn through the pool takes ten times as long.
 */
export class Scratch {
  private readonly root: string;
  private readonly layouts: string;
  private readonly store: ObjectStore;
  private readonly runner: RunnerAddress;
  /** Of what was fetched: the cache lies where a script could reach it. */
  private readonly digests = new Map<string, string>();

  /** @param layouts where the runner can read them. */
  constructor(
    root: string,
    store: ObjectStore,
    runner: RunnerAddress,
    layouts = join(root, "layouts"),
  ) {
    this.root = root;
    this.layouts = layouts;
    this.store = store;
    this.runner = runner;
  }

  openAttempt(attempt: AttemptId): AttemptFolder {
    return this.openFolder(attempt.replaceAll("/", "_"));
  }

  /** @param name of the folders: a plain one. */
  openFolder(name: string): AttemptFolder {
    const script = join(this.runner.folder, name);
    return {
      name,
      layout: join(this.layouts, name),
      work: join(script, "work"),
      temp: join(script, TEMP),
      combinerTemp: join(script, COMBINER_TEMP),
      spill: join(this.root, "own", "spill", name),
    };
  }

  /** A folder for spilled runs of no attempt; whoever fills it removes it. */
  newSpill(): string {
    return join(this.root, "own", "spill", `early-${randomUUID()}`);
  }

  /** An empty layout. What an earlier one has become is not there for the next script. */
  renewLayout(folder: AttemptFolder, hasCombiner: boolean): ScriptLayout {
    rmSync(folder.layout, REMOVE);
    mkdirSync(folder.layout, { recursive: true });
    return { work: folder.layout, temps: hasCombiner ? [TEMP, COMBINER_TEMP] : [TEMP] };
  }

  /** Resolves when nothing of it is left; at once where no script was laid out. */
  async removeAttempt(folder: AttemptFolder, hadScript: boolean): Promise<void> {
    for (const path of [folder.layout, folder.spill]) rmSync(path, REMOVE);
    if (!hadScript) return;
    using request = new RunnerRequest(this.runner, newNumber(), {
      op: "remove",
      attempt: folder.name,
    });
    await request.next("removed");
  }

  /**
   * Puts a blob of dfs-scripts into the layout under the name `link`, executable,
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
    const path = join(folder.layout, link);
    // A copy: the script may write to its own file.
    if (!isArchive(name)) return writeFileSync(path, bytes, { mode: 0o755 });
    const packed = join(folder.spill, `archive-${randomUUID()}`);
    await mkdir(folder.spill, { recursive: true });
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

const TEMP = "tmp";
const COMBINER_TEMP = "tmp-combine";

export interface AttemptFolder {
  /** Of its folder at the runner, which holds what follows. */
  name: string;
  work: string;
  temp: string;
  /** TMPDIR of combiners: what runs beside the mapper is told apart by it. */
  combinerTemp: string;
  /** What becomes `work`. */
  layout: string;
  /** Made by the first who has something to put there. */
  spill: string;
}

const REMOVE = { recursive: true, force: true, maxRetries: 3 };

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** SHA-256, in hexadecimal. */
export function digestOf(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
