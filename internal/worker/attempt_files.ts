import { createHash, randomUUID } from "node:crypto";
import { createWriteStream } from "node:fs";
import { access, chmod, copyFile, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { MrError } from "../model/errors.ts";
import type { AttemptId } from "../model/ids.ts";
import { baseName } from "../model/job.ts";
import { CONTAINER } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";

/** A worker's local disk: `cache/` for scripts by version, `attempts/` with a folder for each. */
export class Scratch {
  private readonly root: string;
  private readonly store: ObjectStore;

  constructor(root: string, store: ObjectStore) {
    this.root = root;
    this.store = store;
  }

  /** The folders of an attempt: `work` is the script's own, `spill` is ours. */
  async openAttempt(attempt: AttemptId): Promise<AttemptFolder> {
    const root = join(this.root, "attempts", attempt.replaceAll("/", "_"));
    const folder = {
      root,
      work: join(root, "work"),
      temp: join(root, "tmp"),
      spill: join(root, "spill"),
    };
    for (const path of [folder.work, folder.temp, folder.spill])
      await mkdir(path, { recursive: true });
    return folder;
  }

  async removeAttempt(folder: AttemptFolder): Promise<void> {
    await rm(folder.root, { recursive: true, force: true, maxRetries: 3 });
  }

  /**
   * Puts a blob of dfs-scripts into the working directory, executable, in the
   * version that the job was accepted with.
   * @throws MrError `changed` or `not_found` when that version is no more.
   */
  async place(name: string, etag: string | undefined, folder: AttemptFolder): Promise<string> {
    const cached = await this.cached(name, etag);
    const path = join(folder.work, baseName(name));
    // A copy: the script may write to its own file.
    await copyFile(cached, path);
    await chmod(path, 0o755);
    return path;
  }

  private async cached(name: string, etag: string | undefined): Promise<string> {
    if (etag === undefined)
      throw new MrError("internal", `no version of ${name} came with the task`);
    const id = createHash("sha256").update(`${name} ${etag}`).digest("hex").slice(0, 32);
    const path = join(this.root, "cache", id);
    if (await exists(path)) return path;
    const fresh = join(this.root, "cache", `.${randomUUID()}`);
    await mkdir(join(this.root, "cache"), { recursive: true });
    try {
      await pipeline(this.store.read(CONTAINER.scripts, name, { etag }), createWriteStream(fresh));
      await rename(fresh, path);
    } catch (error) {
      const gone = MrError.is(error, "changed") || MrError.is(error, "not_found");
      if (!gone) throw error;
      const message = `${CONTAINER.scripts}/${name} was changed or deleted while the job ran`;
      throw new MrError("changed", message, { cause: error });
    } finally {
      await rm(fresh, { force: true });
    }
    return path;
  }
}

export interface AttemptFolder {
  root: string;
  work: string;
  temp: string;
  spill: string;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
