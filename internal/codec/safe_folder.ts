import { link, lstat, mkdir, open, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { MrError } from "../model/errors.ts";

export interface UnpackLimits {
  /** Of all files together, unpacked. */
  bytes: number;
  /** Of files, folders and links, those included that only a path names. */
  entries: number;
  /** What is said of an archive that goes beyond; default: the limit that it is. */
  exceeded?: string;
}

/** What has come of an archive. */
export type Unpacked = Pick<UnpackLimits, "bytes" | "entries">;

/**
 * A folder that is filled from an archive nobody vouches for. Nothing is read or written
 * outside of it: while entries are written there is no symbolic link in it at all. Links are
 * made at the end, once it is known that each leads to a place inside.
 */
export class SafeFolder {
  private readonly root: string;
  private readonly archive: string;
  private readonly limits: UnpackLimits;
  private bytes = 0;
  private entries = 0;
  /** Of the paths and targets that are kept, in characters. */
  private names = 0;
  private readonly folders = new Set<string>();
  /** Taken so far along links. */
  private steps = 0;
  /** Path to target. */
  private readonly links = new Map<string, string>();

  /**
   * @param root an existing, empty folder; of its path nothing is checked.
   * @param archive its name, for messages.
   */
  constructor(root: string, archive: string, limits: UnpackLimits) {
    this.root = root;
    this.archive = archive;
    this.limits = limits;
  }

  /** @throws MrError `user` */
  refuse(entry: string, why: string, cause?: unknown): never {
    throw new MrError("user", `${this.archive}: entry ${shown(entry)} ${why}`, { cause });
  }

  /** Everybody's to list, whatever the archive says: another user takes it over. */
  async addFolder(entry: string): Promise<void> {
    const path = this.pathOf(entry);
    if (path === "") return;
    await this.guarded(entry, async () => {
      await this.addParents(entry, path);
      if (this.folders.has(path)) this.countEntry();
      else {
        await this.clear(path);
        await this.makeFolder(path);
      }
    });
  }

  async addFile(entry: string, mode: number, body: AsyncIterable<Uint8Array>): Promise<void> {
    const path = await this.place(entry);
    await this.guarded(entry, async () => {
      // Never through what is there already, which may have a second name.
      const file = await open(join(this.root, path), "wx", 0o600);
      try {
        for await (const chunk of body) {
          this.countBytes(chunk.length);
          await file.writeFile(chunk);
        }
        await file.chmod((mode & 0o755) | 0o644);
      } finally {
        await file.close();
      }
    });
  }

  async addSymbolicLink(entry: string, target: string): Promise<void> {
    if (target === "" || isForeign(target) || isAbsolute(target))
      this.refuse(entry, `is a link to ${shown(target)}, which is outside`);
    if (target.length > PATH_CHARS_MAX) this.refuse(entry, FAULTS_OF_NAMES.ENAMETOOLONG ?? "");
    const path = await this.place(entry);
    this.countName(path + target);
    this.links.set(path, target);
  }

  async addHardLink(entry: string, target: string): Promise<void> {
    const from = this.pathOf(target, entry);
    const path = this.pathOf(entry);
    if (from === path) return;
    const isInside = from.startsWith(`${path}/`);
    const original = this.links.get(from);
    const isFile = original !== undefined || (!isInside && (await this.isFile(from)));
    if (!isFile) this.refuse(entry, `is a link to ${shown(target)}, which is no file before it`);
    await this.place(entry);
    if (original !== undefined) this.links.set(path, original);
    else await this.guarded(entry, () => link(join(this.root, from), join(this.root, path)));
  }

  /** Makes the symbolic links; nothing can be added afterwards. */
  async finish(): Promise<Unpacked> {
    for (const [path, target] of this.links) {
      if (!(await this.staysInside(path, target)))
        this.refuse(path, `is a link to ${shown(target)}, which is outside`);
    }
    for (const [path, target] of this.links)
      await this.guarded(path, () => symlink(target, join(this.root, path)));
    return { bytes: this.bytes, entries: this.entries };
  }

  /** Makes room for an entry. @returns its path below the root. */
  private async place(entry: string): Promise<string> {
    const path = this.pathOf(entry);
    if (path === "") this.refuse(entry, "has no name");
    this.countEntry();
    await this.guarded(entry, async () => {
      await this.addParents(entry, path);
      await this.clear(path);
    });
    return path;
  }

  /** @param blamed the entry that names it, if another. */
  private pathOf(name: string, blamed = name): string {
    const why = isAbsolute(name) || isForeign(name) ? "is no relative path" : undefined;
    const segments = name.split("/").filter((segment) => segment !== "" && segment !== ".");
    const problem = why ?? (segments.includes("..") ? 'has ".." in its path' : undefined);
    if (name.length > PATH_CHARS_MAX) this.refuse(blamed, FAULTS_OF_NAMES.ENAMETOOLONG ?? "");
    if (problem !== undefined)
      this.refuse(blamed, name === blamed ? problem : `is a link to ${shown(name)}: it ${problem}`);
    return segments.join("/");
  }

  private async addParents(entry: string, path: string): Promise<void> {
    for (let end = path.indexOf("/"); end >= 0; end = path.indexOf("/", end + 1)) {
      const parent = path.slice(0, end);
      if (this.folders.has(parent)) continue;
      if (this.links.has(parent)) this.refuse(entry, `lies behind the link ${shown(parent)}`);
      if (await this.isFile(parent))
        this.refuse(entry, `lies in ${shown(parent)}, which is no folder`);
      await this.makeFolder(parent);
    }
  }

  private async makeFolder(path: string): Promise<void> {
    this.countEntry();
    this.countName(path);
    await mkdir(join(this.root, path), { mode: 0o755 });
    this.folders.add(path);
  }

  /** Of two entries with one path the later wins. */
  private async clear(path: string): Promise<void> {
    await rm(join(this.root, path), { recursive: true, force: true });
    this.links.delete(path);
    if (!this.folders.delete(path)) return;
    const below = `${path}/`;
    for (const folder of this.folders) if (folder.startsWith(below)) this.folders.delete(folder);
    for (const name of this.links.keys()) if (name.startsWith(below)) this.links.delete(name);
  }

  private async isFile(path: string): Promise<boolean> {
    const found = await lstat(join(this.root, path)).catch(() => undefined);
    return found?.isFile() ?? false;
  }

  private countEntry(): void {
    this.entries += 1;
    if (this.entries > this.limits.entries) this.exceed(`${this.limits.entries} entries`);
  }

  private countBytes(count: number): void {
    this.bytes += count;
    if (this.bytes > this.limits.bytes) this.exceed(`${this.limits.bytes} bytes`);
  }

  /** Of files it is on disk, of folders and links in memory. */
  private countName(name: string): void {
    this.names += name.length;
    if (this.names > NAMES_CHARS_MAX) this.exceed(`${NAMES_CHARS_MAX} characters of names`);
  }

  private exceed(limit: string): never {
    const { exceeded = `${this.archive} unpacks to more than ${limit} (the limit)` } = this.limits;
    throw new MrError("user", exceeded);
  }

  /**
   * Follows a link as the system would. The ways up lead out of real folders only: what "x/.."
   * is where x is a link or nothing depends on what x becomes.
   */
  private async staysInside(path: string, target: string): Promise<boolean> {
    const place = path.split("/").slice(0, -1);
    const ahead = target.split("/");
    for (let steps = 0; ahead.length > 0; steps += 1) {
      // A step takes the longer, the deeper it is.
      this.steps += place.length + 1;
      if (steps > STEPS_MAX || this.steps > ALL_STEPS_MAX) return false;
      const segment = ahead.shift() ?? "";
      if (segment === "" || segment === ".") continue;
      if (segment === "..") {
        if (place.length === 0 || !this.folders.has(place.join("/"))) return false;
        place.pop();
        continue;
      }
      place.push(segment);
      const next = this.links.get(place.join("/"));
      if (next === undefined) continue;
      place.pop();
      ahead.unshift(...next.split("/"));
    }
    return true;
  }

  /** What the system says of a name is the archive's fault; of the disk, it is not. */
  private async guarded(entry: string, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      const why = FAULTS_OF_NAMES[code];
      if (why === undefined) throw error;
      this.refuse(entry, why, error);
    }
  }
}

/** Far more than any honest link takes; links that lead in circles end here. */
const STEPS_MAX = 1_000;
/** The same for all links of an archive together. */
const ALL_STEPS_MAX = 10_000_000;
/** No system has longer ones. */
const PATH_CHARS_MAX = 4_096;
const NAMES_CHARS_MAX = 64 * 1024 * 1024;

const FAULTS_OF_NAMES: Record<string, string> = {
  ENAMETOOLONG: "has too long a path",
  EILSEQ: "has a name this system cannot have",
  // On a disk that does not tell "A" from "a".
  EEXIST: "has the name of another one",
};

function isAbsolute(path: string): boolean {
  return path.startsWith("/");
}

/** What means something else on another system, or nothing. */
function isForeign(path: string): boolean {
  return path.includes("\\") || path.includes("\0") || /^[A-Za-z]:/.test(path);
}

/** In quotes, on one line, not too long. */
function shown(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}...` : name);
}
