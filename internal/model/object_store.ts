import type { Receipt } from "./task.ts";

/**
 * Port: containers of objects. Backends: Azure Blob, a folder.
 *
 * O1: a staged object is invisible until `publish`; a crash leaves nothing visible.
 * O2: `publish` is idempotent: whoever repeats it, the object is the receipt's.
 * O3: a read with an etag gives bytes of that version only, or fails with `changed`.
 * O4: `create` makes an object only where there is none.
 *
 * Every method throws MrError: `not_found`, `changed`, `denied` (at once: no right to it, archived,
 * a name it cannot have), `unavailable` (after its own retries), `aborted`; `publish` also `corrupt`
 * when the staged object is gone. Messages name the container and the object.
 */
export interface ObjectInfo {
  name: string;
  size: number;
  etag: string;
}

export interface ReadOptions {
  /** First byte; default 0. */
  start?: number;
  /** Bytes; default to the end. */
  length?: number;
  etag?: string;
  signal?: AbortSignal;
  /** About how much to read at a time, in bytes; a hint. */
  chunkBytes?: number;
  /** The caller is done with a chunk when it asks for the next: its memory may be used again. */
  reuse?: boolean;
}

/** Commit or discard: there is no plain close. */
export interface StagedObject {
  /** Resolves when the chunk was taken; the chunk may be reused afterwards. */
  write(chunk: Uint8Array): Promise<void>;
  /** Makes what was written durable under a receipt. */
  seal(): Promise<Receipt>;
  /** Instead of `seal`: makes it visible now. For a name that is this owner's alone. */
  publish(): Promise<void>;
  discard(): Promise<void>;
}

export interface ObjectStore {
  /** Whether transfers are worth compressing. */
  readonly remote: boolean;
  /** HTTP requests sent so far, tries included; undefined where there are none. */
  readonly requests?: number;
  containers(): Promise<string[]>;
  containerExists(container: string): Promise<boolean>;
  /** Makes the container if need be. */
  ensureContainer(container: string): Promise<void>;
  /** In order of name. */
  list(container: string, prefix?: string): AsyncIterable<ObjectInfo>;
  head(container: string, name: string): Promise<ObjectInfo | undefined>;
  read(container: string, name: string, options?: ReadOptions): AsyncIterable<Uint8Array>;
  /**
   * `owner` is unique to the attempt: two owners may stage one name at a time.
   * What stands before its first slash is its group.
   */
  stage(
    container: string,
    name: string,
    owner: string,
    signal?: AbortSignal,
  ): Promise<StagedObject>;
  publish(receipt: Receipt, signal?: AbortSignal): Promise<void>;
  /** Forgets a staged object that was not published. */
  discard(receipt: Receipt): Promise<void>;
  /** Forgets whatever the owners of a group have staged in a container. */
  discardStaged(container: string, group: string): Promise<void>;
  create(
    container: string,
    name: string,
    bytes: Uint8Array,
    signal?: AbortSignal,
  ): Promise<"created" | "exists">;
  /** Writes a whole object, over an older one if there is one. */
  put(
    container: string,
    name: string,
    body: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<ObjectInfo>;
  /** No error where there is nothing. */
  delete(container: string, name: string): Promise<void>;
  close(): Promise<void>;
}

/** Gathers a stream known to be small. */
export async function readAll(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}
