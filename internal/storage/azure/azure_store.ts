import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { BlockBlobClient } from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import { prefixFault } from "../../model/names.ts";
import type {
  ObjectInfo,
  ObjectStore,
  ReadOptions,
  StagedObject,
} from "../../model/object_store.ts";
import type { Receipt } from "../../model/task.ts";
import { Account, type AzureIdentity, describeService, plainEtag, serviceFor } from "./account.ts";
import { answerCode, isGone } from "./answers.ts";
import { Patience } from "./patience.ts";
import { ReadBudget } from "./read_ahead.ts";
import { SlabPool } from "./slab_pool.ts";
import {
  blockIds,
  type Commit,
  StagedUpload,
  stagingId,
  UPLOAD_BYTES_MAX,
} from "./staged_upload.ts";
import { READ_BYTES_MAX, windowedRead } from "./windowed_read.ts";

const PATIENCE_MS = 10_000;
const IDLE_MS = 15_000;
/** Azure takes half a minute, or more, to delete a container. */
const DELETING_MS = 90_000;
const DELETING_LOOK_MS = 300;
const TOKEN_METADATA = "mrtoken";

export interface AzureStoreOptions {
  /** How long a failing storage is borne with, in milliseconds; default 10,000. */
  patienceMs?: number | undefined;
  /** A response without a byte for this long is given up and resumed, in milliseconds; default 15,000. */
  idleMs?: number | undefined;
}

/**
 * The object store of a cluster: Azure Blob Storage (Azurite in tests).
 *
 * Every request costs money, a write or a listing ten times as much as a read. If nothing has to be
 * tried again, it takes
 *
 * | operation                | requests                                                         |
 * |--------------------------|------------------------------------------------------------------|
 * | stage, write, seal       | a write for every 16 MiB, begun ones too; none for nothing       |
 * | publish                  | a write; where that failed, a read to see whether it had landed  |
 * | create                   | a write; where there is something already, a read to see whose   |
 * | put; stage, write and    | a write below 16 MiB, else those of stage and publish            |
 * | the staged one's publish |                                                                  |
 * | read                     | a read; for a consumer faster than the link one for every 32 MiB |
 * | head, containerExists    | a read                                                           |
 * | list, containers         | a listing for every 5,000 names                                  |
 * | ensureContainer          | a write, also where there is one already; a read if that is      |
 * |                          | denied                                                           |
 * | delete                   | one that is free                                                 |
 * | discard, discardStaged   | none: Azure drops uncommitted blocks within a week               |
 */
export class AzureStore implements ObjectStore {
  readonly remote = true;
  private readonly account: Account;
  private readonly patience: Patience;
  private readonly idleMs: number;
  private readonly slabs = new SlabPool(UPLOAD_BYTES_MAX);
  private readonly readBudget = new ReadBudget(READ_BYTES_MAX);

  /** @param access a connection string, or an identity (identity.ts). */
  constructor(access: string | AzureIdentity, options: AzureStoreOptions = {}) {
    const service = serviceFor(access);
    this.patience = new Patience(options.patienceMs ?? PATIENCE_MS, describeService(service));
    this.idleMs = options.idleMs ?? IDLE_MS;
    this.account = new Account(service, this.patience);
  }

  get requests(): number {
    return this.patience.requests;
  }

  async containers(): Promise<string[]> {
    const names: string[] = [];
    const asked = { doing: "listing the containers" };
    const pages = this.account.pages(asked, (continuationToken, abortSignal) =>
      this.account.service.listContainers({ abortSignal }).byPage({ continuationToken }),
    );
    for await (const page of pages) for (const { name } of page.containerItems) names.push(name);
    return names;
  }

  async containerExists(container: string): Promise<boolean> {
    return this.patience.call({ doing: "looking for", container }, (abortSignal) =>
      this.account.container(container).exists({ abortSignal }),
    );
  }

  async ensureContainer(container: string): Promise<void> {
    const endMs = performance.now() + DELETING_MS;
    while (true) {
      try {
        return await this.makeContainer(container);
      } catch (error) {
        const isPassing = answerCode(error) === "ContainerBeingDeleted";
        if (!isPassing || performance.now() > endMs) throw error;
        await delay(DELETING_LOOK_MS);
      }
    }
  }

  private async makeContainer(container: string): Promise<void> {
    try {
      await this.patience.call({ doing: "making", container }, (abortSignal) =>
        this.account.container(container).createIfNotExists({ abortSignal }),
      );
    } catch (error) {
      if (!MrError.is(error, "denied")) throw error;
      // Who may not make containers has them made. If he may not look either, the write will tell.
      const isThere = await this.containerExists(container).catch((looking) => {
        if (MrError.is(looking, "denied")) return true;
        throw looking;
      });
      if (!isThere) throw error;
    }
  }

  async *list(container: string, prefix = ""): AsyncIterable<ObjectInfo> {
    const fault = prefixFault(prefix);
    if (fault !== undefined) throw new MrError("invalid", `${prefix}: ${fault}`);
    const pages = this.account.pages(
      { doing: "listing", container },
      (continuationToken, abortSignal) =>
        this.account
          .container(container)
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
      const found = await this.patience.call(
        { doing: "looking at", container, name },
        (abortSignal) => this.account.found(container, name).getProperties({ abortSignal }),
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
    const { patience, idleMs } = this;
    yield* windowedRead(
      { blob: this.account.found(container, name), patience, idleMs },
      options,
      this.readBudget,
    );
  }

  async stage(
    container: string,
    name: string,
    owner: string,
    signal?: AbortSignal,
  ): Promise<StagedObject> {
    return this.upload(container, name, owner, signal);
  }

  private upload(container: string, name: string, owner: string, signal: AbortSignal | undefined) {
    const { patience, slabs } = this;
    const at = { container, name, owner, signal };
    const commit: Commit = (receipt, until) => this.commit(receipt, until);
    const shared = { patience, pool: slabs, commit };
    return new StagedUpload(this.account.blob(container, name), at, shared);
  }

  async publish(receipt: Receipt, signal?: AbortSignal): Promise<void> {
    await this.commit(receipt, signal);
  }

  /** @returns the etag of what it made. */
  private async commit(receipt: Receipt, signal?: AbortSignal): Promise<string> {
    const { container, name } = receipt;
    const blob = this.account.blob(container, name);
    const ids = blockIds(receipt.token);
    const token = stagingId(receipt.token);
    try {
      const made = await this.patience.call(
        { doing: "publishing", container, name },
        (abortSignal) =>
          blob.commitBlockList(ids, { abortSignal, metadata: { [TOKEN_METADATA]: token } }),
        signal,
      );
      return plainEtag(made.etag);
    } catch (error) {
      if (MrError.is(error, "aborted")) throw error;
      // O2: committed before, and the reply or its leader was lost.
      const own = await this.ownObject(blob, token);
      if (own !== undefined) return own;
      if (!isGone(error)) throw error;
      const message = `storage: the staged object of ${container}/${name} is gone`;
      throw new MrError("corrupt", message, { cause: error });
    }
  }

  /** The etag of the object, if it was this upload that made it. */
  private async ownObject(blob: BlockBlobClient, token: string): Promise<string | undefined> {
    const asked = { doing: "looking at", container: blob.containerName, name: blob.name };
    try {
      const found = await this.patience.call(asked, (abortSignal) =>
        blob.getProperties({ abortSignal }),
      );
      return found.metadata?.[TOKEN_METADATA] === token ? plainEtag(found.etag) : undefined;
    } catch (error) {
      // Whose it is cannot be said by one who did not see it.
      if (MrError.is(error, "unavailable")) throw error;
      return undefined;
    }
  }

  async discard(_receipt: Receipt): Promise<void> {}

  async discardStaged(_container: string, _group: string): Promise<void> {}

  async create(
    container: string,
    name: string,
    bytes: Uint8Array,
    signal?: AbortSignal,
  ): Promise<"created" | "exists"> {
    const token = randomUUID();
    const blob = this.account.blob(container, name);
    // The caller's may change while the connection of a failed try still sends.
    const body = Buffer.from(bytes);
    try {
      await this.patience.call(
        { doing: "creating", container, name },
        (abortSignal) =>
          blob.upload(body, body.length, {
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
      return (await this.ownObject(blob, token)) === undefined ? "exists" : "created";
    }
  }

  async put(
    container: string,
    name: string,
    body: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<ObjectInfo> {
    const staged = this.upload(container, name, randomUUID(), signal);
    let size = 0;
    try {
      for await (const chunk of body) {
        if (signal?.aborted) throw new MrError("aborted", "storage: given up");
        await staged.write(chunk);
        size += chunk.length;
      }
      return { name, size, etag: await staged.publishNow() };
    } catch (error) {
      await staged.discard();
      throw error;
    }
  }

  async delete(container: string, name: string): Promise<void> {
    try {
      await this.patience.call({ doing: "deleting", container, name }, (abortSignal) =>
        this.account.blob(container, name).delete({ abortSignal }),
      );
    } catch (error) {
      if (!MrError.is(error, "not_found")) throw error;
    }
  }

  async close(): Promise<void> {}
}
