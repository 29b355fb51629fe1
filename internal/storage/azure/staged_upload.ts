import { createHash, randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import type { BlockBlobClient } from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import type { StagedObject } from "../../model/object_store.ts";
import type { Receipt } from "../../model/task.ts";
import { plainEtag } from "./account.ts";
import { LinkedAbort } from "./linked_abort.ts";
import type { Patience } from "./patience.ts";
import { SLAB_BYTES, type SlabPool } from "./slab_pool.ts";

/**
 * Every block is a request, and costs as much as ten reads: blocks are large. For the same memory
 * there could be twice as many of half the size, which is faster only where a connection is slow
 * (1.5 times at 10 MB/s; not at 60, where three make 180 MB/s for every slot of a worker).
 * Azure takes 50,000 blocks for a blob: 780 GiB.
 */
export const BLOCK_BYTES = 16 * 1024 * 1024;
export const BLOCKS_IN_FLIGHT = 3;
/** Blocks are smaller only where many uploads share the store's memory, but never than this. */
const BLOCK_BYTES_LEAST = 4 * 1024 * 1024;
/** One more is being filled. */
export const UPLOAD_BYTES_MAX = BLOCK_BYTES * (BLOCKS_IN_FLIGHT + 1);

/** What the SDK takes as the body of a request that may be sent again. */
type Body = Buffer | (() => NodeJS.ReadableStream);
type SendBody<T> = (body: Body, length: number, signal: AbortSignal) => Promise<T>;
/** Makes an object of its blocks. @returns its etag. */
export type Commit = (receipt: Receipt, signal?: AbortSignal) => Promise<string>;

/**
 * Uncommitted blocks under ids that no other attempt has.
 *
 * U1: at most BLOCKS_IN_FLIGHT blocks are under way and one is being filled. When other uploads
 *     have taken the store's slabs it is one in all, sent as it is beyond BLOCK_BYTES_LEAST.
 * U2: the first failure stops the other blocks and is what every later write and `seal` throws.
 * U3: a slab is used again only if its block's first try went well. After any other end a
 *     connection may still be sending from it, under an id that counts.
 */
export class StagedUpload implements StagedObject {
  private readonly blob: BlockBlobClient;
  private readonly place: { container: string; name: string };
  private readonly idPrefix: string;
  private readonly patience: Patience;
  private readonly pool: SlabPool;
  private readonly commit: (receipt: Receipt) => Promise<string>;
  private readonly stop: LinkedAbort;
  private slabs: Buffer[] = [];
  private filled = 0;
  private size = 0;
  private blocks = 0;
  private readonly flying = new Set<Promise<void>>();
  private failure: { error: unknown } | undefined;

  constructor(
    blob: BlockBlobClient,
    at: { container: string; name: string; owner: string; signal: AbortSignal | undefined },
    shared: { patience: Patience; pool: SlabPool; commit: Commit },
  ) {
    this.blob = blob;
    this.place = { container: at.container, name: at.name };
    this.patience = shared.patience;
    this.pool = shared.pool;
    this.commit = (receipt) => shared.commit(receipt, at.signal);
    this.stop = new LinkedAbort(at.signal);
    this.idPrefix = createHash("sha256")
      .update(`${at.owner} ${randomUUID()}`)
      .digest("hex")
      .slice(0, 24);
  }

  async write(chunk: Uint8Array): Promise<void> {
    let rest = chunk;
    while (rest.length > 0) {
      this.throwIfFailed();
      const at = this.filled % SLAB_BYTES;
      const slab = at === 0 ? await this.anotherSlab() : (this.slabs.at(-1) as Buffer);
      if (at === 0) this.slabs.push(slab);
      const taken = Math.min(rest.length, SLAB_BYTES - at);
      slab.set(rest.subarray(0, taken), at);
      this.filled += taken;
      this.size += taken;
      rest = rest.subarray(taken);
      if (this.filled === BLOCK_BYTES) await this.flush();
    }
  }

  private async anotherSlab(): Promise<Buffer> {
    const slab = this.pool.take(this.filled < BLOCK_BYTES_LEAST && this.flying.size === 0);
    if (slab !== undefined) return slab;
    // It waits for its own blocks only: another upload's may be waiting for a slow client.
    if (this.filled > 0) await this.flush();
    await this.landed(1);
    return this.pool.take(true) as Buffer;
  }

  /** Sends what there is as a block, as soon as there is room for it under way. */
  private async flush(): Promise<void> {
    await this.landed(BLOCKS_IN_FLIGHT);
    const id = blockId(this.idPrefix, this.blocks);
    this.blocks += 1;
    const flight = this.sendFilled((body, length, abortSignal) =>
      this.blob.stageBlock(id, body, length, { abortSignal }),
    )
      .catch((error) => {
        this.failure ??= { error };
        this.stop.abort();
      })
      .then(() => void this.flying.delete(flight));
    this.flying.add(flight);
  }

  /** Waits until fewer than so many blocks are under way. @throws what one of them failed with. */
  private async landed(inFlight: number): Promise<void> {
    while (this.flying.size >= inFlight) await Promise.race(this.flying);
    this.throwIfFailed();
  }

  private async sendFilled<T>(request: SendBody<T>): Promise<T> {
    const slabs = this.slabs;
    const { body, length } = bodyOf(slabs, this.filled);
    this.slabs = [];
    this.filled = 0;
    let tries = 0;
    let sent = false;
    try {
      const send = (signal: AbortSignal) => {
        tries += 1;
        return request(body, length, signal);
      };
      const asked = { doing: "writing", ...this.place };
      const answer = await this.patience.call(asked, send, this.stop.signal);
      sent = true;
      return answer;
    } finally {
      this.pool.give(slabs, sent && tries === 1);
    }
  }

  private throwIfFailed(): void {
    if (this.failure !== undefined) throw this.failure.error;
  }

  async publish(): Promise<void> {
    await this.publishNow();
  }

  /** In one request, if nothing was sent yet. @returns the etag of what it made. */
  async publishNow(): Promise<string> {
    this.throwIfFailed();
    if (this.blocks > 0) return this.commit(await this.seal());
    const made = await this.sendFilled((body, length, abortSignal) =>
      this.blob.upload(body, length, { abortSignal }),
    );
    this.stop.letGo();
    return plainEtag(made.etag);
  }

  async seal(): Promise<Receipt> {
    this.throwIfFailed();
    if (this.filled > 0) await this.flush();
    await this.landed(1);
    this.stop.letGo();
    return { ...this.place, size: this.size, token: `${this.idPrefix}:${this.blocks}` };
  }

  async discard(): Promise<void> {
    this.failure ??= { error: new MrError("aborted", "storage: the upload was discarded") };
    this.stop.letGo();
    this.stop.abort();
    this.pool.give(this.slabs.splice(0), true);
    this.filled = 0;
    await Promise.all(this.flying);
  }
}

function bodyOf(slabs: Buffer[], length: number): { body: Body; length: number } {
  const views = slabs.map((slab, i) => slab.subarray(0, length - i * SLAB_BYTES));
  if (views.length <= 1) return { body: views[0] ?? Buffer.alloc(0), length };
  return { body: () => Readable.from(views, { objectMode: false }), length };
}

/** All block ids of a blob must have one length. */
function blockId(prefix: string, index: number): string {
  return Buffer.from(`${prefix}-${String(index).padStart(6, "0")}`).toString("base64");
}

export function blockIds(token: string): string[] {
  const match = /^([0-9a-f]{24}):(\d{1,5})$/.exec(token);
  if (match === null) throw new MrError("corrupt", "not a receipt of this store");
  return Array.from({ length: Number(match[2]) }, (_, index) => blockId(match[1] ?? "", index));
}

/** What all tries of one upload have in common. */
export function stagingId(token: string): string {
  return token.slice(0, 24);
}
