import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { seeded } from "../support/corpus.ts";

/** Seeded input of every case, written by large buffers. Sizes are in bytes, counts in lines. */
const FILES = 16;
const BUFFER_BYTES = 4 << 20;

/** What a generator leaves: files below a folder, and what is known of the result. */
export interface Input {
  folder: string;
  /** Sorted lines `word TAB count`, where words were counted. */
  counts?: string[];
}

/** Writes one file by pieces. */
class FileSink {
  private readonly file: number;
  private readonly buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  private filled = 0;
  bytes = 0;

  constructor(path: string) {
    this.file = openSync(path, "wx");
  }

  add(bytes: Uint8Array): void {
    if (this.filled + bytes.length > BUFFER_BYTES) this.flush();
    this.buffer.set(bytes, this.filled);
    this.filled += bytes.length;
    this.bytes += bytes.length;
  }

  private flush(): void {
    writeSync(this.file, this.buffer, 0, this.filled);
    this.filled = 0;
  }

  end(): void {
    this.flush();
    closeSync(this.file);
  }
}

/** Words of 2 to 11 letters, each once, followed by a blank. */
function vocabulary(size: number, random: () => number): Buffer[] {
  const words = new Set<string>();
  while (words.size < size) {
    let word = "";
    for (let n = 2 + Math.floor(random() * 10); n > 0; n -= 1)
      word += String.fromCharCode(97 + Math.floor(random() * 26));
    words.add(`${word} `);
  }
  return [...words].map((word) => Buffer.from(word));
}

/** Numbers below `size`, n with a chance in proportion to 1 / (n + 1). */
function zipf(size: number, random: () => number): () => number {
  const sums = new Float64Array(size);
  let total = 0;
  for (let i = 0; i < size; i += 1) {
    total += 1 / (i + 1);
    sums[i] = total;
  }
  // The first guess is as good as binary search over a million slots would be.
  const slots = new Int32Array(1 << 18);
  for (let slot = 0, i = 0; slot < slots.length; slot += 1) {
    while ((sums[i] as number) < (total * slot) / slots.length) i += 1;
    slots[slot] = i;
  }
  return () => {
    const wanted = random() * total;
    let i = slots[Math.floor((wanted / total) * slots.length)] as number;
    while ((sums[i] as number) < wanted) i += 1;
    return i;
  };
}

/** Text in lines of ten words, the words by Zipf's law. @param files default 16. */
export function makeText(folder: string, bytes: number, files = FILES): Input {
  const random = seeded(2026);
  const words = vocabulary(bytes < 200e6 ? 60_000 : 190_000, random);
  const next = zipf(words.length, random);
  const counts = new Float64Array(words.length);
  const lf = Buffer.from("\n");
  mkdirSync(folder, { recursive: true });
  for (let file = 0; file < files; file += 1) {
    const sink = new FileSink(join(folder, `part-${String(file).padStart(5, "0")}`));
    while (sink.bytes < bytes / files) {
      for (let i = 0; i < 10; i += 1) {
        const word = next();
        counts[word] = (counts[word] as number) + 1;
        sink.add(words[word] as Buffer);
      }
      sink.add(lf);
    }
    sink.end();
  }
  const lines = words.flatMap((word, i) =>
    (counts[i] as number) > 0 ? `${word.toString().trimEnd()}\t${counts[i]}` : [],
  );
  return { folder, counts: lines.toSorted() };
}

/** Records of 100 bytes with a key of 10 random printable ones. */
export function makeRecords(folder: string, bytes: number): Input {
  const random = seeded(7);
  mkdirSync(folder, { recursive: true });
  const record = Buffer.alloc(100, ".");
  record[10] = 9;
  record[99] = 10;
  for (let file = 0; file < FILES; file += 1) {
    const sink = new FileSink(join(folder, `part-${String(file).padStart(5, "0")}`));
    while (sink.bytes < bytes / FILES) {
      for (let i = 0; i < 10; i += 1) record[i] = 33 + Math.floor(random() * 94);
      sink.add(record);
    }
    sink.end();
  }
  return { folder };
}

/** Lines `key TAB 1`: all keys distinct, in an order that is not theirs; or all the same. */
export function makePairs(folder: string, lines: number, keys: "distinct" | "one"): Input {
  mkdirSync(folder, { recursive: true });
  const per = Math.ceil(lines / FILES);
  for (let file = 0; file < FILES; file += 1) {
    const sink = new FileSink(join(folder, `part-${String(file).padStart(5, "0")}`));
    for (let i = 0; i < per; i += 1) {
      // An odd factor: different numbers stay different in 32 bits.
      const number = Math.imul(file * per + i, 0x9e3779b1) >>> 0;
      sink.add(Buffer.from(keys === "one" ? "the-hot-key\t1\n" : `k${number}\t1\n`));
    }
    sink.end();
  }
  return { folder };
}

export function md5(lines: string[]): string {
  const hash = createHash("md5");
  for (const line of lines) hash.update(`${line}\n`);
  return hash.digest("hex");
}
