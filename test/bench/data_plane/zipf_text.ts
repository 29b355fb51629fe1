import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { seeded } from "../../support/corpus.ts";
import type { DataFolder } from "./data_folder.ts";
import { partName } from "./files.ts";

/** Text as people write it: lines of 5 to 15 words, the word of rank k as often as 1/k. */

const WORDS = 190_000;
const LETTERS_MIN = 2;
const LETTERS_MAX = 8;
const LINE_WORDS_MIN = 5;
const LINE_WORDS_MAX = 15;
const CHUNK_BYTES = 1 << 20;
const SEED = 20_240_501;
const SPACE = 0x20;
const LF = 0x0a;

export interface TextData {
  files: string[];
  /** `word TAB count` by words in byte order. */
  counts: string;
}

/** So many files of exactly the same size. */
export async function zipfText(data: DataFolder, bytes: number, files: number): Promise<TextData> {
  const each = Math.floor(bytes / files);
  const names = Array.from({ length: files }, (_, i) => `input/${partName(i)}`);
  return textData(data, `zipf-${files}x${each}-seed${SEED}`, names, each);
}

/** Many small files, in groups: a folder for each. */
export async function smallFiles(
  data: DataFolder,
  options: { files: number; bytes: number; groups: number },
): Promise<TextData & { groups: string[] }> {
  const { files, bytes, groups } = options;
  const groupOf = (i: number) => `input/${partName(Math.floor((i * groups) / files))}`;
  const names = Array.from({ length: files }, (_, i) => `${groupOf(i)}-${partName(i)}`);
  const made = await textData(data, `small-${files}x${bytes}-seed${SEED}`, names, bytes);
  const prefixes = names.map((_, i) => groupOf(i));
  const root = made.counts.slice(0, made.counts.lastIndexOf("/"));
  return { ...made, groups: [...new Set(prefixes)].map((prefix) => join(root, prefix)) };
}

async function textData(
  data: DataFolder,
  name: string,
  names: string[],
  bytes: number,
): Promise<TextData> {
  const folder = await data.get(name, (into) => writeText(into, names, bytes));
  const files = names.map((file) => join(folder, file));
  return { files, counts: join(folder, "counts") };
}

async function writeText(folder: string, names: string[], bytes: number): Promise<void> {
  const words = new ZipfWords(seeded(SEED));
  const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, bytes));
  await mkdir(join(folder, "input"));
  for (const name of names) {
    await using file = await open(join(folder, name), "w");
    for (let left = bytes; left > 0; ) {
      const piece = chunk.subarray(0, Math.min(left, chunk.length));
      words.fill(piece);
      await file.writeFile(piece);
      left -= piece.length;
    }
  }
  await writeFile(join(folder, "counts"), words.counts());
}

class ZipfWords {
  private readonly random: () => number;
  private readonly words: string[];
  /** The words' bytes, in slots of the same length; then their lengths, and how often each came. */
  private readonly bytes = new Uint8Array(WORDS * LETTERS_MAX);
  private readonly lengths = new Uint8Array(WORDS);
  private readonly seen = new Uint32Array(WORDS);

  constructor(random: () => number) {
    this.random = random;
    const distinct = new Set<string>();
    for (let rank = 0; distinct.size < WORDS; rank = distinct.size)
      distinct.add(randomWord(random, lettersOf(rank)));
    this.words = [...distinct];
    for (const [rank, word] of this.words.entries()) {
      Buffer.from(word).copy(this.bytes, rank * LETTERS_MAX);
      this.lengths[rank] = word.length;
    }
  }

  /** Fills a buffer with whole lines; what no word fits into is blanks. */
  fill(into: Buffer): void {
    const { random, bytes, lengths, seen } = this;
    const scale = Math.log(WORDS + 1);
    const lineWords = () =>
      LINE_WORDS_MIN + Math.floor(random() * (LINE_WORDS_MAX - LINE_WORDS_MIN + 1));
    const last = into.length - 1;
    let at = 0;
    for (let left = lineWords(); ; left -= 1) {
      const rank = Math.floor(Math.exp(random() * scale)) - 1;
      const length = lengths[rank] as number;
      if (at + length > last) break;
      seen[rank] = (seen[rank] as number) + 1;
      const from = rank * LETTERS_MAX;
      for (let i = 0; i < length; i += 1) into[at + i] = bytes[from + i] as number;
      into[at + length] = left === 1 ? LF : SPACE;
      at += length + 1;
      if (left === 1) left = lineWords() + 1;
    }
    into.fill(SPACE, at);
    into[last] = LF;
  }

  counts(): string {
    const lines = this.words.flatMap((word, rank) => {
      const count = this.seen[rank] as number;
      return count === 0 ? [] : [`${word}\t${count}\n`];
    });
    return lines.toSorted().join("");
  }
}

/** The rarer the longer. */
function lettersOf(rank: number): number {
  const share = Math.log(rank + 1) / Math.log(WORDS + 1);
  return LETTERS_MIN + Math.floor(share * (LETTERS_MAX - LETTERS_MIN + 1));
}

function randomWord(random: () => number, letters: number): string {
  let word = "";
  for (let i = 0; i < letters; i += 1) word += String.fromCharCode(97 + Math.floor(random() * 26));
  return word;
}
