import { MrError } from "../../internal/model/errors.ts";
import type {
  ObjectInfo,
  ObjectStore,
  ReadOptions,
  StagedObject,
} from "../../internal/model/object_store.ts";
import { type Client, ServerError, storagePath } from "./client.ts";

/**
 * The cluster's store as a task sees it that is run again outside: it reads through
 * the proxy, and what it would write is thrown away.
 */
export class ProxyStore implements ObjectStore {
  readonly remote = false;
  private readonly client: Client;

  constructor(client: Client) {
    this.client = client;
  }

  async *read(
    container: string,
    name: string,
    { start = 0, length, etag, signal }: ReadOptions = {},
  ): AsyncIterable<Uint8Array> {
    if (length === 0) return;
    const headers: Record<string, string> = {};
    if (start > 0 || length !== undefined)
      headers.range = `bytes=${start}-${length === undefined ? "" : start + length - 1}`;
    if (etag !== undefined) headers["if-match"] = `"${etag}"`;
    const init: RequestInit = { headers, ...(signal && { signal }) };
    const { body } = await this.fetch(storagePath(container, name), init);
    if (body !== null) yield* body as unknown as AsyncIterable<Uint8Array>;
  }

  private async fetch(path: string, init: RequestInit): Promise<Response> {
    try {
      return await this.client.fetch(path, init);
    } catch (cause) {
      if (!(cause instanceof ServerError)) throw cause;
      const code =
        cause.status === 404 ? "not_found" : cause.status === 412 ? "changed" : "unavailable";
      throw new MrError(code, cause.message, { cause });
    }
  }

  async stage(container: string, name: string): Promise<StagedObject> {
    let size = 0;
    return {
      write: async (chunk) => {
        size += chunk.length;
      },
      seal: async () => ({ container, name, size, token: "none" }),
      publish: async () => undefined,
      discard: async () => undefined,
    };
  }

  publish = async () => undefined;
  discard = async () => undefined;
  discardStaged = async () => undefined;
  create = async () => "created" as const;
  delete = async () => undefined;
  ensureContainer = async () => undefined;
  close = async () => undefined;

  containers(): Promise<string[]> {
    throw unused();
  }
  containerExists(): Promise<boolean> {
    throw unused();
  }
  list(): AsyncIterable<ObjectInfo> {
    throw unused();
  }
  head(): Promise<ObjectInfo | undefined> {
    throw unused();
  }
  put(): Promise<ObjectInfo> {
    throw unused();
  }
}

function unused(): MrError {
  return new MrError("internal", "a task has no use for this");
}
