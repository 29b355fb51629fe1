import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { seeded } from "../../support/corpus.ts";
import type { DataFolder } from "./data_folder.ts";
import { type PutRecord, partName, RecordFile } from "./files.ts";
import { partitionOf } from "./ready_made.ts";

/** Data of one shape each: records to sort, keys that are all distinct, keys that are all the same. */

const SEED = 7_411;
const TAB = 0x09;
const LF = 0x0a;
const RECORD_BYTES = 100;
const KEY_BYTES = 10;
const PRINTABLE_FROM = 0x21;
const PRINTABLE = 94;
/** Hexadecimal digits of a key or a value. */
const DIGITS = 8;
const DIGIT_BYTES = Buffer.from("0123456789abcdef");

/** Records of 100 bytes: a random key, a TAB, a number and filling. */
export async function sortRecords(data: DataFolder, bytes: number, files: number) {
  const count = Math.ceil(bytes / RECORD_BYTES / files) * files;
  const put = putSortRecord();
  const folder = await data.get(`records-${files}x${count / files}-seed${SEED}`, (into) =>
    writeParts(join(into, "input"), count, files, RECORD_BYTES, put),
  );
  return partsOf(join(folder, "input"), files);
}

function putSortRecord(): PutRecord {
  const random = seeded(SEED);
  const filling = Buffer.alloc(RECORD_BYTES, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
  return (into, at, number) => {
    into.set(filling, at);
    for (let i = 0; i < KEY_BYTES; i += 1)
      into[at + i] = PRINTABLE_FROM + Math.floor(random() * PRINTABLE);
    into[at + KEY_BYTES] = TAB;
    putDigits(into, at + KEY_BYTES + 1, number);
    into[at + RECORD_BYTES - 1] = LF;
  };
}

export interface KeyData {
  files: string[];
  /** What the reducers would read, sorted: a file for each. */
  ready: string[];
  /** The one right result, by lines in byte order. */
  expected: string;
}

/** `key TAB 1`, no key twice, in no order. */
export async function distinctKeys(
  data: DataFolder,
  options: { count: number; files: number; reducers: number },
): Promise<KeyData> {
  const { count, files, reducers } = options;
  const length = DIGITS + 3;
  const putKey = (keys: Uint32Array): PutRecord => {
    return (into, at, number) => {
      putDigits(into, at, keys[number] as number);
      into[at + DIGITS] = TAB;
      into[at + DIGITS + 1] = 0x31;
      into[at + DIGITS + 2] = LF;
    };
  };
  const make = async (into: string) => {
    const keys = Uint32Array.from({ length: count }, (_, i) => scrambled(i + SEED));
    await writeParts(join(into, "input"), count, files, length, putKey(keys));
    keys.sort();
    await writeParts(into, count, 1, length, putKey(keys));
    const key = Buffer.alloc(DIGITS);
    const partitions = Uint8Array.from(keys, (value) => {
      putDigits(key, 0, value);
      return partitionOf(key, reducers);
    });
    await mkdir(join(into, "ready"));
    for (let r = 0; r < reducers; r += 1) {
      const mine = keys.filter((_, i) => partitions[i] === r);
      await using file = await RecordFile.create(join(into, "ready", partName(r)));
      await file.records(0, mine.length, length, putKey(mine));
    }
  };
  const folder = await data.get(`distinct-${count}-${files}x${reducers}`, make);
  return {
    files: partsOf(join(folder, "input"), files),
    ready: partsOf(join(folder, "ready"), reducers),
    // Each key comes once: the sum is what was put in.
    expected: join(folder, partName(0)),
  };
}

/** One key, with the value 1 or with a value of its own in each line. */
export async function hotKey(
  data: DataFolder,
  options: { bytes: number; files: number; reducers: number; values: "same" | "distinct" },
): Promise<KeyData> {
  const { bytes, files, reducers, values } = options;
  const key = Buffer.from("the-one-key\t");
  const digits = values === "same" ? 1 : DIGITS;
  const length = key.length + digits + 1;
  const count = Math.ceil(bytes / length / files) * files;
  const put: PutRecord = (into, at, number) => {
    into.set(key, at);
    if (values === "same") into[at + key.length] = 0x31;
    else putDecimals(into, at + key.length, number);
    into[at + length - 1] = LF;
  };
  const sum = values === "same" ? count : (count * (count - 1)) / 2;
  const partition = partitionOf(key.subarray(0, -1), reducers);
  const make = async (into: string) => {
    await writeParts(join(into, "input"), count, files, length, put);
    await mkdir(join(into, "ready"));
    for (let r = 0; r < reducers; r += 1) {
      await using file = await RecordFile.create(join(into, "ready", partName(r)));
      if (r === partition) await file.records(0, count, length, put);
    }
    await writeFile(join(into, "expected"), `the-one-key\t${sum}\n`);
  };
  const folder = await data.get(`hot-${values}-${count}-${files}x${reducers}`, make);
  return {
    files: partsOf(join(folder, "input"), files),
    ready: partsOf(join(folder, "ready"), reducers),
    expected: join(folder, "expected"),
  };
}

export function partsOf(folder: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => join(folder, partName(i)));
}

async function writeParts(
  folder: string,
  count: number,
  files: number,
  length: number,
  put: PutRecord,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [i, path] of partsOf(folder, files).entries()) {
    await using file = await RecordFile.create(path);
    const from = Math.floor((i * count) / files);
    await file.records(from, Math.floor(((i + 1) * count) / files), length, put);
  }
}

/** A one-to-one map of 32 bits (the end of MurmurHash3): numbers become keys in no order, none twice. */
function scrambled(number: number): number {
  let hash = number;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function putDigits(into: Buffer, at: number, value: number): void {
  for (let i = 0; i < DIGITS; i += 1)
    into[at + i] = DIGIT_BYTES[(value >>> (4 * (DIGITS - 1 - i))) & 15] as number;
}

function putDecimals(into: Buffer, at: number, value: number): void {
  for (let i = DIGITS - 1, rest = value; i >= 0; i -= 1, rest = Math.floor(rest / 10))
    into[at + i] = 0x30 + (rest % 10);
}
