import { createReadStream } from "node:fs";
import { MrError, messageOf } from "../model/errors.ts";
import type { ArchiveEntry } from "./archive_entry.ts";
import { gunzip } from "./decompress.ts";
import { SafeFolder, type Unpacked, type UnpackLimits } from "./safe_folder.ts";
import { tarEntries } from "./tar_reader.ts";
import { zipEntries } from "./zip_reader.ts";

export type { UnpackLimits };

/** By the name: `.tar`, `.tar.gz`, `.tgz`, `.zip`. */
export function isArchive(name: string): boolean {
  return /\.(tar|tar\.gz|tgz|zip)$/.test(name);
}

/**
 * Unpacks an archive that nobody vouches for. Of the modes the executable bits are kept; owners
 * and times are not. Of two entries with one path the later wins. After an error `into` holds
 * a part of it.
 * @param archive the path of a file.
 * @param name what its kind is told by; for messages.
 * @param into an existing, empty folder.
 * @throws MrError `user` when it is damaged, goes over a limit, or holds what leads out of the
 * folder or belongs in none; the system's errors (no space left) as they are.
 */
export async function unpackArchive(
  archive: string,
  name: string,
  into: string,
  limits: UnpackLimits,
  signal?: AbortSignal,
): Promise<Unpacked> {
  const folder = new SafeFolder(into, name, limits);
  try {
    for await (const entry of entriesOf(archive, name, limits)) {
      signal?.throwIfAborted();
      await add(folder, entry);
    }
    return await folder.finish();
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof MrError || isOfTheSystem(cause)) throw cause;
    throw new MrError("user", `${name} cannot be unpacked: ${messageOf(cause)}`, { cause });
  }
}

async function add(folder: SafeFolder, entry: ArchiveEntry): Promise<void> {
  const { name } = entry;
  switch (entry.kind) {
    case "folder":
      return folder.addFolder(name);
    case "file":
      return folder.addFile(name, entry.mode, entry.body);
    case "symbolic link":
      return folder.addSymbolicLink(name, entry.target);
    case "hard link":
      return folder.addHardLink(name, entry.target);
    case "other":
      return folder.refuse(name, `is ${entry.what}`);
  }
}

function entriesOf(
  archive: string,
  name: string,
  limits: UnpackLimits,
): AsyncIterable<ArchiveEntry> {
  if (name.endsWith(".zip")) return zipEntries(archive);
  if (!isArchive(name))
    throw new MrError("user", `${name} is no archive (.tar, .tar.gz, .tgz, .zip)`);
  const bytes = createReadStream(archive, { highWaterMark: CHUNK_BYTES });
  return tarEntries(bounded(name.endsWith(".tar") ? bytes : gunzip(name, bytes), name, limits));
}

const CHUNK_BYTES = 1 << 18;
/** What an entry takes in a tar besides its bytes. */
const ENTRY_BYTES = 4_096;
const ENDING_BYTES = 1 << 20;

/** What is no file's takes time too: a terabyte of padding is a small gzip file. */
async function* bounded(
  bytes: AsyncIterable<Uint8Array>,
  name: string,
  limits: UnpackLimits,
): AsyncGenerator<Uint8Array> {
  let left = limits.bytes + limits.entries * ENTRY_BYTES + ENDING_BYTES;
  for await (const chunk of bytes) {
    left -= chunk.length;
    if (left < 0) throw new MrError("user", limits.exceeded ?? tooMany(name, limits));
    yield chunk;
  }
}

function tooMany(name: string, { bytes }: UnpackLimits): string {
  return `${name} unpacks to more than ${bytes} bytes (the limit)`;
}

/** Of the disk, not of the archive. */
function isOfTheSystem(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.syscall !== undefined;
}
