import { createHash, randomUUID } from "node:crypto";
import {
  BlobServiceClient,
  type BlockBlobClient,
  type ContainerClient,
  RestError,
} from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import { blobNameFault, containerNameFault, prefixFault } from "../../model/names.ts";
import type {
  ObjectInfo,
  ObjectStore,
  ReadOptions,
  StagedObject,
} from "../../model/object_store.ts";
import type { Receipt } from "../../model/task.ts";
import { Patience } from "./patience.ts";
import { resumingRead } from "./resuming_read.ts";

/** Azure refuses a blob of more than 50,000 blocks: 8 MiB each make 390 GiB. */
const BLOCK_BYTES = 8 * 1024 * 1024;
const PATIENCE_MS = 10_000;
const IDLE_MS = 15_000;
const TOKEN_METADATA = "mrtoken";

export interface AzureStoreOptions {
  /** How long a failing storage is borne with, in milliseconds; default 10,000. */
  patienceMs?: number | undefined;
  /** A response without a byte for this long is given up and resumed, in milliseconds; default 15,000. */
  idleMs?: number | undefined;
}

/** The object store of a cluster: Azure Blob Storage (Azurite in tests). */
export class AzureStore implements ObjectStore {
  readonly remote = true;
  private readonly service: BlobServiceClient;
  private readonly patience: Patience;
  private readonly idleMs: number;

  constructor(connectionString: string, options: AzureStoreOptions = {}) {
    this.patience = new Patience(options.patienceMs ?? PATIENCE_MS);
    this.idleMs = options.idleMs ?? IDLE_MS;
    try {
      this.service = BlobServiceClient.fromConnectionString(connectionString, {
        // All tries are ours: the SDK's know neither stalled bodies nor our deadline.
        retryOptions: { maxTries: 1 },
      });
    } catch {
      // The SDK's own message may quote the string, and with it the key.
      throw new MrError("invalid", "the Blob connection string is not valid");
    }
  }

  async containers(): Promise<string[]> {
    const names: string[] = [];
    const pages = this.pages((continuationToken, abortSignal) =>
      this.service.listContainers({ abortSignal }).byPage({ continuationToken }),
    );
    for await (const page of pages) for (const { name } of page.containerItems) names.push(name);
    return names;
  }

  /** The pages of a listing, each tried until it comes. */
  private async *pages<P extends { continuationToken?: string }>(
    open: (token: string | undefined, signal: AbortSignal) => AsyncIterableIterator<P>,
  ): AsyncIterable<P> {
    let token: string | undefined;
    do {
      const from = token;
      const { value, done } = await this.patience.call((signal) => open(from, signal).next());
      if (done === true) return;
      yield value;
      token = value.continuationToken;
    } while (token !== undefined && token !== "");
  }

  async containerExists(container: string): Promise<boolean> {
    return this.patience.call((abortSignal) => this.container(container).exists({ abortSignal }));
  }

  async ensureContainer(container: string): Promise<void> {
    await this.patience.call((abortSignal) =>
      this.container(container).createIfNotExists({ abortSignal }),
    );
  }

  async *list(container: string, prefix = ""): AsyncIterable<ObjectInfo> {
    const fault = prefixFault(prefix);
    if (fault !== undefined) throw new MrError("invalid", `${prefix}: ${fault}`);
    const pages = this.pages((continuationToken, abortSignal) =>
      this.container(container)
        .listBlobsFlat({ prefix, abortSignal })
        .byPage({ continuationToken }),
    );
    for await (const page of pages)
      for (const blob of page.segment.blobItems)
        yield {
          name: blob.name,
          size: blob.properties.contentLength ?? 0,
          etag: plainEtag(blob.properties.etag),
        };
  }

  async head(container: string, name: string): Promise<ObjectInfo | undefined> {
    try {
      const found = await this.patience.call((abortSignal) =>
        this.blob(container, name).getProperties({ abortSignal }),
      );
      return { name, size: found.contentLength ?? 0, etag: plainEtag(found.etag) };
    } catch (error) {
      if (MrError.is(error, "not_found")) return undefined;
      throw error;
    }
  }

  async *read(
    container: string,
    name: string,
    options: ReadOptions = {},
  ): AsyncIterable<Uint8Array> {
    const blob = this.blob(container, name);
    try {
      yield* resumingRead(blob, options, this.patience, this.idleMs);
    } catch (error) {
      // Azure answers a read that starts at or beyond the end with 416.
      const { cause } = error as Error;
      if (cause instanceof RestError && cause.statusCode === 416) return;
      throw error;
    }
  }

  async stage(
    container: string,
    name: string,
    owner: string,
    signal?: AbortSignal,
  ): Promise<StagedObject> {
    return new AzureStaged(this.blob(container, name), { container, name }, owner, (body) =>
      this.patience.call(body, signal),
    );
  }

  async publish(receipt: Receipt, signal?: AbortSignal): Promise<void> {
    const blob = this.blob(receipt.container, receipt.name);
    const ids = blockIds(receipt.token);
    try {
      await this.patience.call(
        (abortSignal) =>
          blob.commitBlockList(ids, {
            abortSignal,
            metadata: { [TOKEN_METADATA]: stagingId(receipt.token) },
          }),
        signal,
      );
    } catch (error) {
      if (MrError.is(error, "aborted")) throw error;
      // O2: committed before, and the reply or its leader was lost.
      if (!(await this.carries(blob, stagingId(receipt.token)))) throw error;
    }
  }

  private async carries(blob: BlockBlobClient, token: string): Promise<boolean> {
    const found = await this.patience
      .call((abortSignal) => blob.getProperties({ abortSignal }))
      .catch(() => undefined);
    return found?.metadata?.[TOKEN_METADATA] === token;
  }

  /** Azure itself drops blocks that are not committed within a week. */
  async discard(_receipt: Receipt): Promise<void> {}

  async discardStaged(_container: string, _ownerPrefix: string): Promise<void> {}

  async create(
    container: string,
    name: string,
    bytes: Uint8Array,
    signal?: AbortSignal,
  ): Promise<"created" | "exists"> {
    const token = randomUUID();
    const blob = this.blob(container, name);
    try {
      await this.patience.call(
        (abortSignal) =>
          blob.upload(Buffer.from(bytes), bytes.length, {
            abortSignal,
            conditions: { ifNoneMatch: "*" },
            metadata: { [TOKEN_METADATA]: token },
          }),
        signal,
      );
      return "created";
    } catch (error) {
      if (!MrError.is(error, "exists") && !MrError.is(error, "changed")) throw error;
      // A retry after a lost reply meets the object that its first try made.
      return (await this.carries(blob, token)) ? "created" : "exists";
    }
  }

  async put(
    container: string,
    name: string,
    body: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<ObjectInfo> {
    const staged = await this.stage(container, name, randomUUID(), signal);
    for await (const chunk of body) {
      signal?.throwIfAborted();
      await staged.write(chunk);
    }
    await this.publish(await staged.seal());
    const info = await this.head(container, name);
    if (info === undefined) throw new MrError("unavailable", `${name} was deleted meanwhile`);
    return info;
  }

  async delete(container: string, name: string): Promise<void> {
    await this.patience.call((abortSignal) =>
      this.blob(container, name).deleteIfExists({ abortSignal }),
    );
  }

  async close(): Promise<void> {}

  private container(container: string): ContainerClient {
    const fault = containerNameFault(container);
    if (fault !== undefined) throw new MrError("invalid", `container ${container}: ${fault}`);
    return this.service.getContainerClient(container);
  }

  private blob(container: string, name: string): BlockBlobClient {
    const fault = blobNameFault(name);
    if (fault !== undefined) throw new MrError("invalid", `${name}: ${fault}`);
    return this.container(container).getBlockBlobClient(name);
  }
}

type Call = (body: (signal: AbortSignal) => Promise<unknown>) => Promise<unknown>;

/** Uncommitted blocks under ids that no other attempt has; one upload runs while the next fills. */
class AzureStaged implements StagedObject {
  private readonly blob: BlockBlobClient;
  private readonly place: { container: string; name: string };
  private readonly idPrefix: string;
  private buffer = Buffer.allocUnsafe(0);
  private filled = 0;
  private blocks = 0;
  private size = 0;
  private upload: Promise<unknown> = Promise.resolve();
  private readonly call: Call;

  constructor(
    blob: BlockBlobClient,
    place: { container: string; name: string },
    owner: string,
    call: Call,
  ) {
    this.call = call;
    this.blob = blob;
    this.place = place;
    this.idPrefix = createHash("sha256")
      .update(`${owner} ${randomUUID()}`)
      .digest("hex")
      .slice(0, 24);
  }

  async write(chunk: Uint8Array): Promise<void> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.buffer.length === 0) this.buffer = Buffer.allocUnsafe(BLOCK_BYTES);
      const taken = Math.min(rest.length, BLOCK_BYTES - this.filled);
      this.buffer.set(rest.subarray(0, taken), this.filled);
      this.filled += taken;
      this.size += taken;
      rest = rest.subarray(taken);
      if (this.filled === BLOCK_BYTES) await this.flush();
    }
  }

  private async flush(): Promise<void> {
    const block = this.buffer.subarray(0, this.filled);
    const id = blockId(this.idPrefix, this.blocks);
    this.blocks += 1;
    this.buffer = Buffer.allocUnsafe(0);
    this.filled = 0;
    await this.upload;
    this.upload = this.call((abortSignal) =>
      this.blob.stageBlock(id, block, block.length, { abortSignal }),
    );
    // Whoever writes next, or seals, is told; until then it is not unhandled.
    this.upload.catch(() => undefined);
  }

  async seal(): Promise<Receipt> {
    if (this.filled > 0) await this.flush();
    await this.upload;
    return { ...this.place, size: this.size, token: `${this.idPrefix}:${this.blocks}` };
  }

  async discard(): Promise<void> {
    await this.upload.catch(() => undefined);
  }
}

/** All block ids of a blob must have one length. */
function blockId(prefix: string, index: number): string {
  return Buffer.from(`${prefix}-${String(index).padStart(6, "0")}`).toString("base64");
}

function blockIds(token: string): string[] {
  const match = /^([0-9a-f]{24}):(\d{1,5})$/.exec(token);
  if (match === null) throw new MrError("corrupt", "not a receipt of this store");
  return Array.from({ length: Number(match[2]) }, (_, index) => blockId(match[1] ?? "", index));
}

function stagingId(token: string): string {
  return token.slice(0, 24);
}

/** A listing gives etags bare, a response header quoted. */
function plainEtag(etag: string | undefined): string {
  return (etag ?? "").replaceAll('"', "");
}
