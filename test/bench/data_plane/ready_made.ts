import { createReadStream } from "node:fs";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import type { DataFolder } from "./data_folder.ts";
import { partName, RecordFile } from "./files.ts";
import type { TextData } from "./zipf_text.ts";

/** What reducers read, made before anything is timed: a floor has nothing to shuffle. */

/** Hadoop's partition, as the product has it: so each reducer of the floor has as much to do as one of ours. */
export function partitionOf(key: Uint8Array, reducers: number): number {
  let hash = 1;
  for (const byte of key) hash = (Math.imul(hash, 31) + ((byte << 24) >> 24)) | 0;
  return (hash & 0x7fffffff) % reducers;
}

/** The sorted lines `word TAB 1` of a text, one file for each reducer. */
export async function readyWords(
  data: DataFolder,
  text: TextData,
  reducers: number,
): Promise<string[]> {
  const name = basename(dirname(text.counts));
  const folder = await data.get(`ready-${name}-${reducers}`, async (into) => {
    for (let r = 0; r < reducers; r += 1) {
      await using file = await RecordFile.create(join(into, partName(r)));
      for await (const line of createInterface({ input: createReadStream(text.counts) })) {
        const [word = "", count] = line.split("\t");
        if (partitionOf(Buffer.from(word), reducers) === r)
          await file.repeat(Buffer.from(`${word}\t1\n`), Number(count));
      }
    }
  });
  return Array.from({ length: reducers }, (_, r) => join(folder, partName(r)));
}
