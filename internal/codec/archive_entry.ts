/** What an archive holds, in its order. Nothing of it is to be trusted. */
export type ArchiveEntry = {
  /** A path, as it is written there. */
  name: string;
} & (
  | { kind: "folder"; mode: number }
  /** `body` is to be read before the next entry is asked for. */
  | { kind: "file"; mode: number; body: AsyncIterable<Uint8Array> }
  | { kind: "symbolic link"; target: string }
  /** Another name of an entry before it, whose path `target` is. */
  | { kind: "hard link"; target: string }
  /** What no folder of a job has a use for, in words. It ends the reading: refuse it. */
  | { kind: "other"; what: string }
);

export const DEFAULT_FILE_MODE = 0o644;
export const DEFAULT_FOLDER_MODE = 0o755;
