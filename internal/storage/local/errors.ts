import { type ErrorCode, MrError, messageOf } from "../../model/errors.ts";

/** What the system says, in plain words; no path of this machine. */
const SYSTEM: Record<string, [code: ErrorCode, words: string]> = {
  EACCES: ["denied", "this process has no right to it"],
  EPERM: ["denied", "this process has no right to it"],
  EROFS: ["denied", "the file system is read-only"],
  ENAMETOOLONG: ["denied", "a file cannot have so long a name"],
  EILSEQ: ["denied", "a file cannot have such a name"],
  EINVAL: ["denied", "a file cannot have such a name"],
  EFBIG: ["denied", "a file cannot be so large"],
  ENOSPC: ["unavailable", "no space left"],
  EDQUOT: ["unavailable", "no space left in the quota"],
  EMFILE: ["unavailable", "too many open files"],
};

/** A folder cannot hold both `a` and `a/b`, as Blob can. */
const CLASHES = new Set(["EEXIST", "ENOTDIR", "EISDIR", "ENOTEMPTY"]);

/** @param place CONTAINER/NAME, or CONTAINER. */
export function storageError(error: unknown, place: string): MrError {
  if (error instanceof MrError) return error;
  if ((error as Error).name === "AbortError") return new MrError("aborted", "aborted");
  const { code = "" } = error as NodeJS.ErrnoException;
  if (CLASHES.has(code)) {
    const clash = "a name is in use as a folder, or a folder's as a name";
    return new MrError("conflict", `storage: ${place}: ${clash}`, { cause: error });
  }
  const [kind, words] = SYSTEM[code] ?? ["unavailable", code === "" ? messageOf(error) : ""];
  const why = code === "" ? words : `${words} (${code})`.trimStart();
  return new MrError(kind, `storage: ${place}: ${why}`, { cause: error });
}

export function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP";
}

/** For what may be missing: then there is nothing. */
export function ignoreMissing(place: string): (error: unknown) => undefined {
  return (error) => {
    if (isMissing(error)) return undefined;
    throw storageError(error, place);
  };
}

export async function guard<T>(place: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw storageError(error, place);
  }
}
