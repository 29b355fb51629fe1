import { randomUUID } from "node:crypto";
import { type BigIntStats, lstatSync, writeSync } from "node:fs";
import {
  type FileHandle,
  link,
  mkdir,
  open,
  opendir,
  readdir,
  rename,
  rm,
  rmdir,
  stat,
  unlink,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { MrError } from "../../model/errors.ts";
import { blobNameFault, CONTAINER, containerNameFault, prefixFault } from "../../model/names.ts";
import type {
  ObjectInfo,
  ObjectStore,
  ReadOptions,
  StagedObject,
} from "../../model/object_store.ts";
import type { Receipt } from "../../model/task.ts";
import { guard, ignoreMissing, isMissing, storageError } from "./errors.ts";
import { openBlocking, openPooled } from "./open_file.ts";
import { sortedNames } from "./sorted_names.ts";

/**
 * The object store of one machine: a folder, in which a container is a
 * sub-folder and an object a file. Staged objects lie in `.staging` (no valid
 * container name) on the same file system, so that publishing is a rename.
 */
const STAGING = ".staging";
/** GROUP/UUID */
const TOKEN = /^[^/]+\/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const READ_BYTES = 256 * 1024;
/** Of a listing. */
const LOOKS_AT_A_TIME = 64;
const ENTRIES_AT_A_TIME = 1_024;

export class LocalStore implements ObjectStore {
  readonly remote = false;
  private readonly root: string;
  private readonly blocking: boolean;

  /** @param blocking data may be read and written at once: this thread keeps nobody waiting. */
  constructor(root: string, { blocking = false } = {}) {
    this.root = root;
    this.blocking = blocking;
  }

  async containers(): Promise<string[]> {
    const entries = await readdir(this.root, { withFileTypes: true }).catch(
      ignoreMissing("the store"),
    );
    return (entries ?? [])
      .filter((entry) => entry.isDirectory() && containerNameFault(entry.name) === undefined)
      .map((entry) => entry.name)
      .toSorted();
  }

  async containerExists(container: string): Promise<boolean> {
    const found = await stat(this.folder(container)).catch(ignoreMissing(container));
    return found?.isDirectory() ?? false;
  }

  async ensureContainer(container: string): Promise<void> {
    await guard(container, mkdir(this.folder(container), { recursive: true }));
  }

  async *list(container: string, prefix = ""): AsyncIterable<ObjectInfo> {
    const fault = prefixFault(prefix);
    if (fault !== undefined) throw new MrError("invalid", `${prefix}: ${fault}`);
    if (!(await this.containerExists(container)))
      throw new MrError("not_found", `no container ${container}`);
    yield* this.walk(container, "", prefix);
  }

  private async *walk(
    container: string,
    folder: string,
    prefix: string,
  ): AsyncIterable<ObjectInfo> {
    const names = await sortedNames(this.entries(container, folder, prefix));
    for (const [i, name] of names.entries()) {
      // Others have their turn now and then.
      if (i % LOOKS_AT_A_TIME === LOOKS_AT_A_TIME - 1) await setImmediate();
      if (name.endsWith("/")) yield* this.walk(container, name, prefix);
      else if (name.startsWith(prefix)) {
        const info = this.look(container, name);
        if (info !== undefined) yield info;
      }
    }
  }

  /** Of a folder, some at a time. One within it has its slash: so it sorts, as its objects do. */
  private async *entries(container: string, folder: string, prefix: string): AsyncIterable<string> {
    const options = { bufferSize: ENTRIES_AT_A_TIME };
    const opened = await opendir(join(this.folder(container), folder), options).catch(
      ignoreMissing(`${container}/${folder}`),
    );
    for await (const entry of opened ?? []) {
      if (!entry.isDirectory() && !entry.isFile()) continue;
      const name = folder + entry.name + (entry.isDirectory() ? "/" : "");
      if (name.startsWith(prefix) || prefix.startsWith(name)) yield name;
    }
  }

  async head(container: string, name: string): Promise<ObjectInfo | undefined> {
    return this.look(container, name);
  }

  /** At once: a turn through the thread pool takes ten times as long. */
  private look(container: string, name: string): ObjectInfo | undefined {
    // bigint: an etag must tell apart two writes within one millisecond.
    const found = statOrNothing(this.found(container, name), `${container}/${name}`);
    if (found === undefined || !found.isFile()) return undefined;
    return { name, size: Number(found.size), etag: etagOf(found) };
  }

  async *read(
    container: string,
    name: string,
    options: ReadOptions = {},
  ): AsyncIterable<Uint8Array> {
    const { chunkBytes = READ_BYTES, reuse = false, signal } = options;
    const file = await this.openForRead(container, name, this.blocking && reuse);
    try {
      const found = await file.stat();
      if (!found.isFile()) throw notFound(container, name);
      const etag = etagOf(found);
      if (options.etag !== undefined && options.etag !== etag)
        throw new MrError("changed", `${container}/${name} was changed since it was listed`);
      const start = options.start ?? 0;
      const end = Math.min(Number(found.size), start + (options.length ?? Number(found.size)));
      let rest = Math.max(0, end - start);
      for await (const chunk of file.chunks(start, end, chunkBytes)) {
        signal?.throwIfAborted();
        rest -= chunk.length;
        yield chunk;
      }
      if (rest > 0) throw new MrError("changed", `${container}/${name} shrank while it was read`);
      // Written over in place, it would be another version now.
      if (options.etag !== undefined && etagOf(await file.stat()) !== etag)
        throw new MrError("changed", `${container}/${name} was changed while it was read`);
    } catch (error) {
      throw storageError(error, `${container}/${name}`);
    } finally {
      await file.close();
    }
  }

  private async openForRead(container: string, name: string, blocking: boolean) {
    const path = this.found(container, name);
    try {
      return blocking ? openBlocking(path) : await openPooled(path);
    } catch (error) {
      throw isMissing(error)
        ? notFound(container, name)
        : storageError(error, `${container}/${name}`);
    }
  }

  async stage(container: string, name: string, owner: string): Promise<StagedObject> {
    this.file(container, name); // refuses bad names now, not at publish
    // A folder for each group of owners, not for each owner: folders are dear to make.
    const [group] = owner.split("/");
    const token = `${group}/${randomUUID()}`;
    const path = this.staged(container, token);
    const place = `${container}/${name}`;
    const file = await guard(
      place,
      withFolder(path, () => open(path, "wx")),
    );
    const receipt = { container, name, size: 0, token };
    return new LocalStaged(file, receipt, this.blocking, this);
  }

  async publish(receipt: Receipt): Promise<void> {
    const from = this.staged(receipt.container, receipt.token);
    const to = this.file(receipt.container, receipt.name);
    try {
      await withFolder(to, () => rename(from, to));
    } catch (error) {
      const place = `${receipt.container}/${receipt.name}`;
      // ENOTDIR is of either: of a part's folder there may be a file.
      if (!isMissing(error) || isThere(from, place)) throw storageError(error, place);
      // O2: it was renamed before, perhaps by a leader that died since.
      const there = await this.head(receipt.container, receipt.name);
      if (there?.size !== receipt.size)
        throw new MrError("corrupt", `storage: the staged object of ${place} is gone`);
    }
  }

  async discard(receipt: Receipt): Promise<void> {
    const path = this.staged(receipt.container, receipt.token);
    await guard(`${receipt.container}/${receipt.name}`, rm(path, { force: true }));
    await this.pruneStaging(dirname(path));
  }

  async discardStaged(container: string, group: string): Promise<void> {
    const fault = group.includes("/") ? "a group has no slash" : blobNameFault(group);
    if (fault !== undefined) throw new MrError("invalid", `${group}: ${fault}`);
    const path = join(this.staging(container), group);
    await guard(container, rm(path, { recursive: true, force: true }));
    await this.pruneStaging(dirname(path));
  }

  /** Removes folders that have become empty, up to the staging folder. */
  private async pruneStaging(folder: string): Promise<void> {
    const top = join(this.root, STAGING);
    for (let at = folder; at.length > top.length && at.startsWith(top); at = dirname(at))
      if (!(await removedEmpty(at))) return;
  }

  async create(container: string, name: string, bytes: Uint8Array): Promise<"created" | "exists"> {
    const staged = await this.stage(container, name, "create");
    await staged.write(bytes);
    const receipt = await staged.seal();
    const to = this.file(container, name);
    try {
      // Unlike rename, link fails where there is something already.
      await withFolder(to, () => link(this.staged(container, receipt.token), to));
      return "created";
    } catch (error) {
      // A folder in its place is no object.
      const isTaken = (error as NodeJS.ErrnoException).code === "EEXIST";
      if (isTaken && this.look(container, name) !== undefined) return "exists";
      throw storageError(error, `${container}/${name}`);
    } finally {
      await this.discard(receipt);
    }
  }

  async put(
    container: string,
    name: string,
    body: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<ObjectInfo> {
    if (!(await this.containerExists(container)))
      throw new MrError("not_found", `no container ${container}`);
    const staged = await this.stage(container, name, "put");
    try {
      for await (const chunk of body) {
        signal?.throwIfAborted();
        await staged.write(chunk);
      }
      const receipt = await staged.seal();
      await this.publish(receipt);
      await this.pruneStaging(dirname(this.staged(container, receipt.token)));
    } catch (error) {
      await staged.discard();
      throw storageError(error, `${container}/${name}`);
    }
    const info = await this.head(container, name);
    if (info === undefined) throw new MrError("unavailable", `${name} was deleted meanwhile`);
    return info;
  }

  async delete(container: string, name: string): Promise<void> {
    const path = this.file(container, name);
    await unlink(path).catch((error) => {
      if (!isMissing(error)) throw storageError(error, `${container}/${name}`);
    });
    const top = this.folder(container);
    for (let at = dirname(path); at.length > top.length; at = dirname(at))
      if (!(await removedEmpty(at))) return;
  }

  async close(): Promise<void> {}

  private folder(container: string): string {
    const fault = containerNameFault(container);
    if (fault !== undefined) throw new MrError("invalid", `container ${container}: ${fault}`);
    return join(this.root, container);
  }

  /** To be read: also under a name that others gave it, and that is no good everywhere. */
  private found(container: string, name: string): string {
    if (name.includes("\0") || name.split("/").some((part) => /^\.{0,2}$/.test(part)))
      throw new MrError("denied", `storage: ${container}/${name}: no file has such a name`);
    return join(this.folder(container), name);
  }

  /** To be written. */
  private file(container: string, name: string): string {
    const fault = blobNameFault(name);
    if (fault !== undefined) throw new MrError("invalid", `${name}: ${fault}`);
    return join(this.folder(container), name);
  }

  /** The file of a receipt: a token comes from others, and names no folder that others stage in. */
  private staged(container: string, token: string): string {
    if (!TOKEN.test(token) || blobNameFault(token) !== undefined)
      throw new MrError("corrupt", "storage: not a receipt of this store");
    return join(this.staging(container), token);
  }

  private staging(container: string): string {
    this.folder(container); // refuses bad names
    return join(this.root, STAGING, container);
  }
}

class LocalStaged implements StagedObject {
  private readonly file: FileHandle;
  private readonly blocking: boolean;
  private readonly receipt: Receipt;
  private readonly store: Pick<ObjectStore, "publish" | "discard">;

  constructor(
    file: FileHandle,
    receipt: Receipt,
    blocking: boolean,
    store: Pick<ObjectStore, "publish" | "discard">,
  ) {
    this.file = file;
    this.blocking = blocking;
    this.receipt = receipt;
    this.store = store;
  }

  async write(chunk: Uint8Array): Promise<void> {
    for (let rest = chunk; rest.length > 0; ) {
      const written = await guard(this.place, this.writeSome(rest));
      rest = rest.subarray(written);
      this.receipt.size += written;
    }
  }

  async seal(): Promise<Receipt> {
    // A map output that a power cut has damaged is found by its checksums, and made again.
    if (this.receipt.container !== CONTAINER.intermediate)
      await guard(this.place, this.file.datasync());
    await this.file.close();
    return { ...this.receipt };
  }

  private get place(): string {
    return `${this.receipt.container}/${this.receipt.name}`;
  }

  async publish(): Promise<void> {
    await this.store.publish(await this.seal());
  }

  async discard(): Promise<void> {
    await this.file.close().catch(() => undefined);
    await this.store.discard(this.receipt);
  }

  private async writeSome(bytes: Uint8Array): Promise<number> {
    if (this.blocking) return writeSync(this.file.fd, bytes);
    return (await this.file.write(bytes)).bytesWritten;
  }
}

function notFound(container: string, name: string): MrError {
  return new MrError("not_found", `no object ${container}/${name}`);
}

const FOLDER_TRIES = 20;

/** Makes a file's folder where it is missing; another may remove it, being empty, before the file is there. */
async function withFolder<T>(path: string, body: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await body();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT" || tries === FOLDER_TRIES) throw error;
    }
    await makeFolder(dirname(path));
  }
}

/** A folder that is removed at this very moment is there at one look and gone at the next. */
async function makeFolder(path: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await mkdir(path, { recursive: true });
      return;
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (!["ENOENT", "EEXIST", "ENOTDIR"].includes(code) || tries === FOLDER_TRIES) throw error;
    }
  }
}

async function removedEmpty(folder: string): Promise<boolean> {
  return rmdir(folder).then(
    () => true,
    () => false,
  );
}

function etagOf(found: { mtimeNs: bigint; size: bigint; ino: bigint }): string {
  return `${found.mtimeNs.toString(36)}-${found.size.toString(36)}-${found.ino.toString(36)}`;
}

function isThere(path: string, place: string): boolean {
  return statOrNothing(path, place) !== undefined;
}

function statOrNothing(path: string, place: string): BigIntStats | undefined {
  try {
    return lstatSync(path, { bigint: true, throwIfNoEntry: false });
  } catch (error) {
    return ignoreMissing(place)(error);
  }
}
