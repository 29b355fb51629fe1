import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { finished } from "node:stream/promises";

/** Seeded chance: mulberry32. */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Writes files of English-like text: word frequencies as in Zipf's law. */
export async function writeCorpus(
  folder: string,
  options: { files: number; bytesPerFile: number; seed: number },
): Promise<string[]> {
  const random = seeded(options.seed);
  const words = Array.from({ length: 20_000 }, (_, i) => {
    const letters = "etaoinshrdlu";
    let word = letters[i % 7] ?? "e";
    for (let n = i + 1; n > 0; n = Math.floor(n / letters.length))
      word += (letters[n % letters.length] ?? "") + (letters[(n * 7) % 5] ?? "");
    return word;
  });
  const paths: string[] = [];
  for (let file = 0; file < options.files; file += 1) {
    const path = join(folder, `text-${String(file).padStart(3, "0")}.txt`);
    const out = createWriteStream(path);
    let written = 0;
    while (written < options.bytesPerFile) {
      let block = "";
      while (block.length < 65_536 && written + block.length < options.bytesPerFile) {
        let line = "";
        for (let i = 0; i < 10; i += 1)
          line += `${words[Math.floor(words.length ** random()) - 1] ?? "a"} `;
        block += `${line.trimEnd()}\n`;
      }
      written += block.length;
      if (!out.write(block)) await once(out, "drain");
    }
    out.end();
    await finished(out);
    paths.push(path);
  }
  return paths;
}
