import { randomUUID } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { isArchive, unpackArchive } from "../codec/unpack.ts";
import { MrError } from "../model/errors.ts";
import type { AttemptId } from "../model/ids.ts";
import { CONTAINER } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { type ModuleRole, moduleRoles } from "../streaming/module_exports.ts";
import { newNumber, type RunnerAddress, RunnerRequest } from "../streaming/runner_connection.ts";
import type { ScriptLayout } from "../streaming/script_process.ts";
import { type FileLimits, megabytes, ScriptCache } from "./script_cache.ts";

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
  private readonly runner: RunnerAddress;
  private readonly limits: FileLimits;
  private readonly roles = new Map<string, Set<ModuleRole>>();
  /** Scripts and files. */
  readonly cache: ScriptCache;

  /** @param layouts where the runner can read them. */
  constructor(
    root: string,
    store: ObjectStore,
    runner: RunnerAddress,
    limits: FileLimits,
    layouts = join(root, "layouts"),
  ) {
    this.root = root;
    this.layouts = layouts;
    this.runner = runner;
    this.limits = limits;
    this.cache = new ScriptCache(join(root, "own", "cache"), store, limits);
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

  /** What a module's text exports; asked of each version once. */
  async rolesOf(
    name: string,
    etag: string | undefined,
    signal: AbortSignal,
  ): Promise<Set<ModuleRole>> {
    const digest = await this.cache.digest(name, etag, signal);
    const key = `${name} ${digest}`;
    let roles = this.roles.get(key);
    if (roles === undefined) {
      const { bytes, size } = await this.cache.beginning(name, etag, MODULE_BYTES_MAX, signal);
      roles = await moduleRoles(name, size > bytes.length ? "" : bytes.toString());
      if (this.roles.size >= ROLES_KEPT_MAX) this.roles.clear();
      this.roles.set(key, roles);
    }
    return roles;
  }

  /** What a job ships, into the layout of one of its scripts. */
  shipment(folder: AttemptFolder, signal: AbortSignal): Shipment {
    return new Shipment(folder, this.cache, this.limits, signal);
  }
}

/** What is larger is an ordinary script, whatever it exports. */
const MODULE_BYTES_MAX = 4 * 1024 * 1024;
const ROLES_KEPT_MAX = 100;

/** Of all archives of a job: more is a mistake, or an attack. */
const ENTRIES_MAX = 200_000;
/** Where the operator sets no limit. */
const UNPACKED_BYTES_MAX = 4 * 1024 ** 3;

/** Blobs of dfs-scripts on their way into a layout, and what they come to. */
export class Shipment {
  private readonly folder: AttemptFolder;
  private readonly cache: ScriptCache;
  private readonly limits: FileLimits;
  private readonly signal: AbortSignal;
  private bytes = 0;
  private entries = 0;

  constructor(folder: AttemptFolder, cache: ScriptCache, limits: FileLimits, signal: AbortSignal) {
    this.folder = folder;
    this.cache = cache;
    this.limits = limits;
    this.signal = signal;
  }

  /**
   * Puts a blob into the layout under the name `link`, executable, in the version that the job was accepted
   * with; an archive as a folder of that name.
   * @throws MrError `changed` when that version is no more, `user` beyond a limit.
   */
  async add(name: string, etag: string | undefined, link: string): Promise<void> {
    const path = join(this.folder.layout, link);
    if (isArchive(name)) return this.unpack(name, etag, path);
    // A copy: the script may write to its own file.
    this.bytes += await this.cache.copy(name, etag, path, 0o755, this.signal);
    const { allBytes } = this.limits;
    if (allBytes > 0 && this.bytes > allBytes)
      throw new MrError("user", `with ${CONTAINER.scripts}/${name} ${tooMuch(allBytes)}`);
  }

  private async unpack(name: string, etag: string | undefined, into: string): Promise<void> {
    const { folder, limits, signal } = this;
    const packed = join(folder.spill, `archive-${randomUUID()}`);
    await mkdir(folder.spill, { recursive: true });
    await this.cache.copy(name, etag, packed, 0o600, signal);
    await mkdir(into);
    const left = {
      bytes: (limits.allBytes || UNPACKED_BYTES_MAX) - this.bytes,
      entries: ENTRIES_MAX - this.entries,
    };
    const exceeded = `${name}, unpacked: ${tooMuch(limits.allBytes || UNPACKED_BYTES_MAX)}`;
    const { bytes, entries } = await unpackArchive(
      packed,
      name,
      into,
      { ...left, exceeded },
      signal,
    );
    this.bytes += bytes;
    this.entries += entries;
    await rm(packed);
  }
}

function tooMuch(bytes: number): string {
  return `the files of the job take more than ${megabytes(bytes)} in all (MR_FILES_MB), or ${ENTRIES_MAX} entries`;
}

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
