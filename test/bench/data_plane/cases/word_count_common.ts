import { spawnSync } from "node:child_process";
import { join } from "node:path";
import type { Site } from "../bench_case.ts";
import { expectParts } from "../expected.ts";
import { readyWords } from "../ready_made.ts";
import { PYTHON } from "../settings.ts";
import { allAtOnce, python, twoAtATime } from "../shell.ts";
import { zipfText } from "../zipf_text.ts";

/** What the cases that count words have in common. */

export const FILES = 16;
export const REDUCERS = 5;

/** The canonical job over a container `text`. */
export const WORD_COUNT = {
  mapper: "mapper.py",
  reducer: "reducer.py",
  data: "text",
  m_num: FILES,
  r_num: REDUCERS,
};

/** A text, its one right word count, and what its reducers read. */
export async function textFor({ data }: Site, bytes: number) {
  const text = await zipfText(data, bytes, FILES);
  return {
    ...text,
    expected: await expectParts("sorted", [text.counts]),
    ready: () => readyWords(data, text, REDUCERS),
  };
}

/**
 * What cannot be undercut: all map commands, two at a time, with nobody reading them; then all reducers at once, on
 * sorted input that was there before.
 */
export function floorOf(maps: string, ready: string[], reducer: string): string {
  return `${maps}\n${allAtOnce(ready, `${reducer} < "$1" > "$name"`)}`;
}

/** A map command for each file, with its output thrown away. */
export function mapOnly(files: string[], mapper: string): string {
  return twoAtATime(files, `${mapper} < "$1" > /dev/null`);
}

export function isInstalled(module: string): boolean {
  return spawnSync(PYTHON, ["-c", `import ${module}`]).status === 0;
}

/** A Python program of the bench itself. */
export function program(name: string): string {
  return python(join(import.meta.dirname, "..", name));
}
