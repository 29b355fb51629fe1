import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { RestError } from "@azure/storage-blob";
import { MrError } from "../../internal/model/errors.ts";
import { Patience } from "../../internal/storage/azure/patience.ts";
import { SLAB_BYTES, SlabPool } from "../../internal/storage/azure/slab_pool.ts";
import {
  BLOCK_BYTES,
  BLOCKS_IN_FLIGHT,
  blockIds,
  StagedUpload,
  UPLOAD_BYTES_MAX,
} from "../../internal/storage/azure/staged_upload.ts";
import { seeded } from "../support/corpus.ts";

type Source = Buffer | (() => AsyncIterable<Buffer>);
type Fault = "none" | "fail" | "late-reader" | "refuse";

/** Longer than the wait before the next try. */
const LATE_MS = 250;

/** Takes blocks as Blob does, at random times; what fails may go on reading what was sent. */
class FakeBlob {
  readonly blocks = new Map<string, Buffer>();
  readonly random: () => number;
  inFlight = 0;
  inFlightMax = 0;
  fault: () => Fault = () => "none";

  constructor(seed: number) {
    this.random = seeded(seed);
  }

  async stageBlock(
    id: string,
    body: Source,
    length: number,
    { abortSignal }: { abortSignal: AbortSignal },
  ) {
    this.inFlight += 1;
    this.inFlightMax = Math.max(this.inFlightMax, this.inFlight);
    try {
      const fault = this.fault();
      if (fault === "late-reader") {
        // The try is over for the client, while its connection still sends.
        void delay(LATE_MS).then(() => this.take(id, body, length));
        throw new RestError("busy", { statusCode: 503 });
      }
      await delay(this.random() * 3, undefined, { signal: abortSignal });
      if (fault === "refuse") throw new RestError("forbidden", { statusCode: 403 });
      if (fault === "fail") throw new RestError("busy", { statusCode: 503 });
      await this.take(id, body, length);
    } finally {
      this.inFlight -= 1;
    }
  }

  private async take(id: string, body: Source, length: number): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of typeof body === "function" ? body() : [body])
      parts.push(Buffer.from(part));
    const bytes = Buffer.concat(parts);
    assert.equal(bytes.length, length);
    this.blocks.set(id, bytes);
  }

  committed(token: string): Buffer {
    return Buffer.concat(blockIds(token).map((id) => this.blocks.get(id) ?? assert.fail(id)));
  }
}

function upload(
  blob: FakeBlob,
  pool: SlabPool,
  patience = new Patience(5_000),
  signal?: AbortSignal,
) {
  const at = { container: "box", name: "x", owner: "j/1", signal };
  const commit = () => assert.fail("nothing is published here");
  return new StagedUpload(blob as never, at, { patience, pool, commit });
}

/** Chunks of all sizes, some larger than a slab, in a buffer that is used again at once. */
async function writeAll(staged: StagedUpload, bytes: Buffer, random: () => number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const length = Math.ceil(random() ** 4 * 3 * SLAB_BYTES);
    const chunk = Buffer.from(bytes.subarray(at, at + length));
    await staged.write(chunk);
    chunk.fill(0xff);
    at += length;
  }
}

function randomBytes(length: number, random: () => number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i += 1) words[i] = random() * 2 ** 32;
  return Buffer.from(words.buffer, 0, length);
}

describe("an upload in blocks", () => {
  const NEAR = [-1, 0, 1];
  const sizes = [
    0,
    1,
    ...NEAR.map((d) => SLAB_BYTES + d),
    ...NEAR.map((d) => BLOCK_BYTES + d),
    ...NEAR.map((d) => 2 * BLOCK_BYTES + d),
    6 * BLOCK_BYTES + 12_345,
  ];
  for (const size of sizes)
    it(`of ${size} bytes is what was written, in bounded memory`, async () => {
      const random = seeded(size);
      const blob = new FakeBlob(size);
      const pool = new SlabPool(UPLOAD_BYTES_MAX);
      const patience = new Patience(5_000);
      const staged = upload(blob, pool, patience);
      const bytes = randomBytes(size, random);
      await writeAll(staged, bytes, random);
      const receipt = await staged.seal();
      assert.equal(receipt.size, size);
      assert.ok(blob.committed(receipt.token).equals(bytes));
      assert.equal(patience.requests, Math.ceil(size / BLOCK_BYTES));
      assert.ok(blob.inFlightMax <= BLOCKS_IN_FLIGHT);
      assert.equal(pool.bytesLent, 0);
      assert.ok(pool.bytesMost <= UPLOAD_BYTES_MAX);
      await staged.discard();
    });

  it("is what was written though tries fail while their connections go on sending", async () => {
    const random = seeded(7);
    const blob = new FakeBlob(7);
    const pool = new SlabPool(UPLOAD_BYTES_MAX);
    for (let round = 0; round < 3; round += 1) {
      blob.fault = () => (random() < 0.3 ? (random() < 0.7 ? "late-reader" : "fail") : "none");
      const staged = upload(blob, pool);
      const bytes = randomBytes(4 * BLOCK_BYTES + 99, random);
      await writeAll(staged, bytes, random);
      const { token } = await staged.seal();
      await delay(LATE_MS * 2);
      assert.ok(blob.committed(token).equals(bytes));
    }
  });

  it("shares the store's memory with others, and goes on when they hold all of it", async () => {
    const blob = new FakeBlob(1);
    const pool = new SlabPool(UPLOAD_BYTES_MAX);
    // They wait for slow clients, as long as it takes.
    const idle = Array.from({ length: 8 }, () => upload(blob, pool));
    for (const one of idle) await one.write(Buffer.alloc(BLOCK_BYTES - 1));
    const random = seeded(2);
    const uploads = Array.from({ length: 3 }, async () => {
      const staged = upload(blob, pool);
      const bytes = randomBytes(2 * BLOCK_BYTES + 5, random);
      await writeAll(staged, bytes, random);
      const { token } = await staged.seal();
      assert.ok(blob.committed(token).equals(bytes));
    });
    await Promise.all(uploads);
    for (const one of idle) await one.discard();
    assert.equal(pool.bytesLent, 0);
    assert.ok(pool.bytesMost <= UPLOAD_BYTES_MAX + 11 * 4 * SLAB_BYTES);
  });

  it("tells the next write, or seal, that a block failed, and stops the others", {
    timeout: 20_000,
  }, async () => {
    for (const writes of [BLOCKS_IN_FLIGHT + 2, 2]) {
      const blob = new FakeBlob(3);
      let blocks = 0;
      // The others would go on trying.
      blob.fault = () => (++blocks === 2 ? "refuse" : "fail");
      const pool = new SlabPool(UPLOAD_BYTES_MAX);
      const staged = upload(blob, pool, new Patience(600_000));
      const block = Buffer.alloc(BLOCK_BYTES);
      const isRefused = (error: unknown) => MrError.is(error, "denied");
      const write = async () => {
        for (let i = 0; i < writes; i += 1) await staged.write(block);
        await staged.seal();
      };
      await assert.rejects(write(), isRefused);
      await assert.rejects(staged.write(block), isRefused);
      await assert.rejects(staged.seal(), isRefused);
      await staged.discard();
      assert.equal(blob.inFlight, 0);
      assert.equal(pool.bytesLent, 0);
    }
  });

  it("leaves nothing behind when it is discarded in flight, or its caller gives up", async () => {
    for (const how of ["discard", "signal"] as const) {
      const blob = new FakeBlob(4);
      const stop = new AbortController();
      // For ever, if nobody stops it.
      blob.fault = () => "fail";
      const pool = new SlabPool(UPLOAD_BYTES_MAX);
      const staged = upload(blob, pool, new Patience(600_000), stop.signal);
      await staged.write(Buffer.alloc(2 * BLOCK_BYTES + 5));
      assert.ok(pool.bytesLent > 2 * BLOCK_BYTES);
      if (how === "signal") {
        stop.abort();
        await assert.rejects(staged.seal(), (error) => MrError.is(error, "aborted"));
      }
      await staged.discard();
      await assert.rejects(staged.write(Buffer.alloc(1)), (error) => MrError.is(error, "aborted"));
      assert.deepEqual([blob.inFlight, pool.bytesLent], [0, 0]);
    }
  });
});
