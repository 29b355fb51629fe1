import { PYTHON, SLOTS } from "./settings.ts";

/** Pieces of the shell contestants' scripts. */

export function quoted(words: string[]): string {
  return words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
}

export function python(script: string): string {
  return `${PYTHON} ${quoted([script])}`;
}

/** A command for each item, which it has as $1 (and the item's last part as $name), two at a time. */
export function twoAtATime(items: string[], command: string): string {
  return each(items, SLOTS, command);
}

/** The same, for all items at once. */
export function allAtOnce(items: string[], command: string): string {
  return each(items, 0, command);
}

function each(items: string[], atATime: number, command: string): string {
  const script = `name=\${1##*/}; ${command}`;
  const bash = `bash -eo pipefail -c ${quoted([script])} bash ITEM`;
  return `printf '%s\\n' ${quoted(items)} | xargs -P ${atATime} -I ITEM ${bash}`;
}

/**
 * awk's beginning: `part[KEY'S FIRST TWO BYTES]` is the piece that a key belongs to. A hash of all of a key's bytes
 * takes awk several times as long, and this one divides words well enough.
 */
function awkPartition(reducers: number): string {
  return `BEGIN {
    FS = "\\t"
    for (i = 1; i < 256; i++) code[sprintf("%c", i)] = i
    for (a in code) for (b in code) part[a b] = out "." (31 * code[a] + code[b]) % ${reducers}
    for (r = 0; r < ${reducers}; r++) printf "" > (out "." r)
  }`;
}

/** Reads pairs, writes each to the file piece.$name.R of its partition. */
export function partitioned(reducers: number): string {
  return awk(`${awkPartition(reducers)} { print > part[substr($0, 1, 2)] }`);
}

/** The same, and adds up the values of each key. */
export function combinedAndPartitioned(reducers: number): string {
  const count = "{ sum[$1] += $2 }";
  const write = "{ line = key FS sum[key]; print line > part[substr(line, 1, 2)] }";
  return awk(`${awkPartition(reducers)} ${count} END { for (key in sum) ${write} }`);
}

function awk(program: string): string {
  return `LC_ALL=C awk -v out="piece.$name" ${quoted([program])}`;
}

/** Adds up the values of each key of sorted pairs. */
export const SUM_SORTED = `LC_ALL=C awk ${quoted([
  `BEGIN { FS = "\\t" }
  NR > 1 && $1 != key { print key FS sum; sum = 0 }
  { key = $1; sum += $2 }
  END { if (NR > 0) print key FS sum }`,
])}`;

/** Sorts the pieces of one input, each by itself. */
export function sortPieces(reducers: number): string {
  const numbers = numbered(reducers).join(" ");
  const sort = 'LC_ALL=C sort --parallel=1 -S 256M "piece.$name.$r" -o "piece.$name.$r"';
  return `for r in ${numbers}; do ${sort}; done`;
}

/** Merges the pieces of each partition into a reducer. */
export function mergeAndReduce(reducers: number, reducer: string): string {
  const merge = "LC_ALL=C sort -m --parallel=1 -- piece.*.$1";
  return twoAtATime(numbered(reducers), `${merge} | ${reducer} > part-$1`);
}

export function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, i) => String(i));
}
