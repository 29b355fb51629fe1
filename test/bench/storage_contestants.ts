/** What the storage benchmark compares, each run in a process of its own so that its peak of memory is its own. */
import { readFileSync } from "node:fs";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { BlobServiceClient } from "@azure/storage-blob";
import { AzureStore } from "../../internal/storage/azure/azure_store.ts";

export const MIB = 1024 * 1024;
export const SMALL_BYTES = 64 * 1024;
const BLOCK_BYTES = 16 * MIB;
const BLOCKS_IN_FLIGHT = 3;
const WINDOW_BYTES = 32 * MIB;
const LANES = 8;
const BOX = "bench";

export interface Run {
  connection: string;
  contestant: string;
  /** Of the large object; a contestant that writes makes one of its own. */
  mb: number;
  /** A name that no other run has. */
  name: string;
}

export interface Measured {
  ms: number;
  cpuMs: number;
  /** How far the process grew beyond what it was before the first byte. */
  peakBytes: number;
  requests: number | undefined;
}

type Contestant = (run: Run, own: AzureStore, raw: BlobServiceClient) => Promise<void>;

function* megabytes(mb: number): Generator<Buffer> {
  const chunk = Buffer.alloc(MIB, "storage bench ");
  for (let i = 0; i < mb; i += 1) yield chunk;
}

const blobOf = (raw: BlobServiceClient, name: string) =>
  raw.getContainerClient(BOX).getBlockBlobClient(name);

async function inLanes(count: number, body: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < count) await body(next++);
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

async function drain(chunks: AsyncIterable<Uint8Array>, bytes: number): Promise<void> {
  let got = 0;
  for await (const chunk of chunks) got += chunk.length;
  if (got !== bytes) throw new Error(`${got} bytes instead of ${bytes}`);
}

/** Takes 8 MiB as fast as it can, then is busy with them for as long as a link of 100 MB/s needs. */
async function drainInBursts(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  let got = 0;
  for await (const chunk of chunks) {
    got += chunk.length;
    if (got < 8 * MIB) continue;
    got -= 8 * MIB;
    await delay(80);
  }
}

async function rawStream(raw: BlobServiceClient, name: string, start: number, length: number) {
  const { readableStreamBody } = await blobOf(raw, name).download(start, length);
  return readableStreamBody as unknown as AsyncIterable<Uint8Array>;
}

/** Ranges of 4 MiB all over the object, as reducers read segments. */
const RANGE = 4 * MIB;
const rangeStart = (index: number, mb: number) =>
  ((index * 7_919) % Math.max(1, mb - 4)) * MIB + index;
const ranges = (mb: number) => Math.max(8, Math.floor(mb / 4));
const smalls = (mb: number) => mb * 2;

export const CONTESTANTS: Record<string, Contestant> = {
  "up/store": async ({ mb, name }, own) => {
    const staged = await own.stage(BOX, name, name);
    for (const chunk of megabytes(mb)) await staged.write(chunk);
    await own.publish(await staged.seal());
  },
  "up/uploadStream": async ({ mb, name }, _own, raw) => {
    const stream = Readable.from(megabytes(mb), { objectMode: false });
    await blobOf(raw, name).uploadStream(stream, BLOCK_BYTES, BLOCKS_IN_FLIGHT);
  },
  "up/stageBlock": async ({ mb, name }, _own, raw) => {
    const blob = blobOf(raw, name);
    const block = Buffer.alloc(BLOCK_BYTES, "storage bench ");
    const ids = Array.from({ length: Math.ceil((mb * MIB) / BLOCK_BYTES) }, (_, i) =>
      Buffer.from(String(i).padStart(6, "0")).toString("base64"),
    );
    let next = 0;
    const lane = async () => {
      for (let id = ids[next++]; id !== undefined; id = ids[next++])
        await blob.stageBlock(id, block, block.length);
    };
    await Promise.all(Array.from({ length: BLOCKS_IN_FLIGHT }, lane));
    await blob.commitBlockList(ids);
  },
  "down/store": async ({ mb }, own) =>
    drain(own.read(BOX, "large", { start: 0, length: mb * MIB }), mb * MIB),
  "down/stream": async ({ mb }, _own, raw) =>
    drain(await rawStream(raw, "large", 0, mb * MIB), mb * MIB),
  "down/toBuffer": async ({ mb }, _own, raw) => {
    const options = { blockSize: WINDOW_BYTES, concurrency: 2 };
    await blobOf(raw, "large").downloadToBuffer(0, mb * MIB, options);
  },
  "bursts/store": async ({ mb }, own) =>
    drainInBursts(own.read(BOX, "large", { start: 0, length: mb * MIB })),
  "bursts/stream": async ({ mb }, _own, raw) =>
    drainInBursts(await rawStream(raw, "large", 0, mb * MIB)),
  "ranges/store": async ({ mb }, own) =>
    inLanes(ranges(mb), (i) =>
      drain(own.read(BOX, "large", { start: rangeStart(i, mb), length: RANGE }), RANGE),
    ),
  "ranges/stream": async ({ mb }, _own, raw) =>
    inLanes(ranges(mb), async (i) =>
      drain(await rawStream(raw, "large", rangeStart(i, mb), RANGE), RANGE),
    ),
  "create/store": async ({ mb, name }, own) => {
    const bytes = Buffer.alloc(SMALL_BYTES, "small");
    await inLanes(smalls(mb), async (i) => void (await own.create(BOX, `${name}/${i}`, bytes)));
  },
  "create/upload": async ({ mb, name }, _own, raw) => {
    const bytes = Buffer.alloc(SMALL_BYTES, "small");
    const conditions = { ifNoneMatch: "*" };
    await inLanes(
      smalls(mb),
      async (i) =>
        void (await blobOf(raw, `${name}/${i}`).upload(bytes, bytes.length, { conditions })),
    );
  },
  "stage/store": async ({ mb, name }, own) => {
    const bytes = Buffer.alloc(SMALL_BYTES, "small");
    await inLanes(smalls(mb), async (i) => {
      const staged = await own.stage(BOX, `${name}/${i}`, name);
      await staged.write(bytes);
      await own.publish(await staged.seal());
    });
  },
  "stage/stageBlock": async ({ mb, name }, _own, raw) => {
    const bytes = Buffer.alloc(SMALL_BYTES, "small");
    const id = Buffer.from("000000").toString("base64");
    await inLanes(smalls(mb), async (i) => {
      const blob = blobOf(raw, `${name}/${i}`);
      await blob.stageBlock(id, bytes, bytes.length);
      await blob.commitBlockList([id]);
    });
  },
  "read/store": async ({ mb }, own) =>
    inLanes(smalls(mb), (i) =>
      drain(own.read(BOX, "small", { start: i % 9, length: SMALL_BYTES - 9 }), SMALL_BYTES - 9),
    ),
  "read/toBuffer": async ({ mb }, _own, raw) =>
    inLanes(smalls(mb), async (i) => {
      await blobOf(raw, "small").downloadToBuffer(i % 9, SMALL_BYTES - 9);
    }),
};

/** Makes what the contestants read. */
export async function prepare(connection: string, mb: number): Promise<void> {
  const store = new AzureStore(connection);
  await store.ensureContainer(BOX);
  await store.create(BOX, "small", Buffer.alloc(SMALL_BYTES, "small"));
  await store.put(BOX, "large", Readable.from(megabytes(mb)));
}

/** Removes what the contestants wrote. */
export async function sweep(connection: string, name: string): Promise<void> {
  const store = new AzureStore(connection);
  const names = await Array.fromAsync(store.list(BOX, name));
  await inLanes(names.length, async (i) => store.delete(BOX, names[i]?.name ?? ""));
}

function memory(field: "VmHWM" | "VmRSS"): number {
  const line = new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync("/proc/self/status", "utf8"));
  return Number(line?.[1]) * 1024;
}

async function measure(run: Run): Promise<Measured> {
  const store = new AzureStore(run.connection);
  const raw = BlobServiceClient.fromConnectionString(run.connection);
  // The first request loads and compiles most of the SDK.
  await store.head(BOX, "small");
  await blobOf(raw, "small").getProperties();
  const before = { bytes: memory("VmRSS"), requests: store.requests };
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  await CONTESTANTS[run.contestant]?.(run, store, raw);
  const ms = performance.now() - startMs;
  const { user, system } = process.cpuUsage(cpu);
  const requests =
    store.requests === undefined || !run.contestant.endsWith("/store")
      ? undefined
      : store.requests - (before.requests ?? 0);
  return {
    ms,
    cpuMs: (user + system) / 1_000,
    peakBytes: Math.max(0, memory("VmHWM") - before.bytes),
    requests,
  };
}

if (import.meta.main) {
  const measured = await measure(JSON.parse(process.argv[2] ?? "") as Run);
  process.stdout.write(`${JSON.stringify(measured)}\n`);
}
