import { execFileSync } from "node:child_process";
import { seeded } from "../../support/corpus.ts";
import type { ContractCase } from "../case.ts";

const SHOW = "import sys\nfor line in sys.stdin.buffer: print(repr(line))\n";
const SUM = `import sys
from itertools import groupby
for key, lines in groupby((l.rstrip("\\n").split("\\t", 1) for l in sys.stdin), lambda l: l[0]):
    print(key, sum(int(v) for _, v in lines), sep="\\t")
`;
/** Fails unless what it reads is sorted, and says how often it ran. */
const CHECKED_SUM = `import sys
lines = [l.rstrip("\\n").split("\\t") for l in sys.stdin]
assert lines == sorted(lines, key=lambda l: l[0].encode()), lines
print("reporter:counter:combiner,runs,1", file=sys.stderr)
sums = {}
for key, value in lines: sums[key] = sums.get(key, 0) + int(value)
for key, value in sums.items(): print(key, value, sep="\\t")
`;
const scripts = { "show.py": SHOW, "sum.py": SUM, "checked.py": CHECKED_SUM };
const words = "a\t1\nb\t1\na\t1\nc\t1\na\t1\n";

/** Hadoop's hash, reckoned otherwise than in the product. */
function hadoopHash(key: string, seed: bigint): bigint {
  let hash = seed;
  for (const byte of Buffer.from(key))
    hash = BigInt.asIntN(32, 31n * hash + BigInt(byte > 127 ? byte - 256 : byte));
  return hash & 0x7fffffffn;
}
const KEYS = [
  "a",
  "b",
  "apple",
  "",
  "zebra",
  "\u00e9t\u00e9",
  "key-17",
  "\u4e2d",
  "A",
  "0",
  "some longer key with spaces",
];
/** Random bytes that are no line end and no TAB, in lines. */
const random = seeded(1_000);
const RANDOM_KEYS = Buffer.concat(
  Array.from({ length: 1_000 }, () => {
    const bytes = Array.from(
      { length: 1 + Math.floor(random() * 30) },
      () => 14 + Math.floor(random() * 242),
    );
    return Buffer.from([...bytes, 10]);
  }),
);

/** What each part holds, sorted. */
function byPython(lines: Buffer, parts: number): Buffer[] {
  const code = `import sys
keys = sys.stdin.buffer.read().split(b"\\n")[:-1]
parts = [[] for _ in range(${parts})]
for key in keys:
    h = 1
    for b in key: h = (31 * h + (b - 256 if b > 127 else b)) & 0xFFFFFFFF
    parts[(h & 0x7FFFFFFF) % ${parts}].append(key)
for part in parts: print("".join(k.hex() + "0a" for k in sorted(part)))
`;
  const out = execFileSync("python3", ["-c", code], { input: lines }).toString();
  return out
    .split("\n")
    .slice(0, parts)
    .map((hex) => Buffer.from(hex, "hex"));
}
const parted = (keys: string[], partOf: (key: string) => bigint, r: number) =>
  Array.from({ length: r }, (_, part) =>
    keys
      .filter((key) => partOf(key) === BigInt(part))
      .toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      .map((key) => `${key}\t\n`)
      .join(""),
  );
const second = (key: string) => key.split(".")[1] ?? "";
const DOTTED = ["x.1.a", "y.1.b", "x.2.a", "z.3.c", "w.2.b", "v.17.q"];

const comparator = (options: string, more: Record<string, string> = {}) => ({
  mapper: "cat",
  reducer: "cut -f1",
  m_num: 2,
  conf: { "mapreduce.partition.keycomparator.options": options, ...more },
});

export const SHUFFLING: ContractCase[] = [
  {
    rules: "P1",
    title: "a part holds the keys that it holds on Hadoop",
    input: { a: KEYS.map((key) => `${key}\n`).join("") },
    request: { mapper: "cat", reducer: "cat", r_num: 4, m_num: 2 },
    parts: parted(KEYS, (key) => hadoopHash(key, 1n) % 4n, 4),
  },
  {
    rules: "P1",
    title: "1,000 random keys, by a reckoning in Python",
    input: { a: RANDOM_KEYS },
    request: { mapper: "cat", reducer: "cut -f1", r_num: 13, m_num: 3 },
    parts: byPython(RANDOM_KEYS, 13),
  },
  {
    rules: "P2",
    title: "partition by the second field of a key",
    input: { a: DOTTED.map((key) => `${key}\n`).join("") },
    request: {
      mapper: "cat",
      reducer: "cat",
      r_num: 3,
      m_num: 1,
      partitioner: "KeyFieldBasedPartitioner",
      conf: {
        "mapreduce.partition.keypartitioner.options": "-k2,2",
        "mapreduce.map.output.key.field.separator": ".",
      },
    },
    parts: parted(DOTTED, (key) => hadoopHash(second(key), 0n) % 3n, 3),
  },
  {
    rules: "P2",
    title: "by characters within a field, by class name, by old option names",
    input: { a: DOTTED.map((key) => `${key}\n`).join("") },
    request: {
      mapper: "cat",
      reducer: "cat",
      r_num: 3,
      m_num: 1,
      conf: {
        "mapred.partitioner.class": "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
        "mapred.text.key.partitioner.options": "-k 2.1,2.1",
        "map.output.key.field.separator": ".",
      },
    },
    parts: parted(DOTTED, (key) => hadoopHash(second(key).slice(0, 1), 0n) % 3n, 3),
  },
  {
    rules: "P2",
    title: "its options alone ask for it; fields that a key lacks count for nothing",
    input: { a: "a.1\nb\nc.1\n" },
    request: {
      mapper: "cat",
      reducer: "cat",
      r_num: 7,
      m_num: 1,
      conf: {
        "mapreduce.partition.keypartitioner.options": "-k2,2",
        "mapreduce.map.output.key.field.separator": ".",
      },
    },
    parts: parted(["a.1", "b", "c.1"], (key) => hadoopHash(second(key), 0n) % 7n, 7),
  },
  {
    rules: "P3",
    title: "numeric, of any size and sign",
    input: { a: "10\n9\n-1\n-10\n0.5\n0.25\n12345678901234567890123\n-0\n7\n" },
    request: comparator("-n"),
    parts: ["-10\n-1\n-0\n0.25\n0.5\n7\n9\n10\n12345678901234567890123\n"],
  },
  {
    rules: "P3",
    title: "reverse",
    input: { a: "a\nc\nb\n" },
    request: comparator("-r"),
    parts: ["c\nb\na\n"],
  },
  {
    rules: "P3",
    title: "second field numeric and reverse, then the first",
    input: { a: "b 2\na 10\nc 10\na 9\n" },
    request: comparator("-k2,2nr -k1,1", { "mapreduce.map.output.key.field.separator": " " }),
    parts: ["a 10\nc 10\na 9\nb 2\n"],
  },
  {
    rules: "P3",
    title: "keys that compare equal still stand together",
    input: { a: "1\tx\n01\tx\n1.0\tx\n1\ty\n01\ty\n1.0\ty\n" },
    request: comparator("-n"),
    parts: ["01\n01\n1\n1\n1.0\n1.0\n"],
  },
  {
    rules: "P4",
    title: "secondary sort: by station, then temperature, the highest first",
    input: { a: "oslo,-3\nrome,20\noslo,7\nrome,31\noslo,2\n", b: "rome,9\noslo,11\n" },
    request: {
      mapper: "cat",
      reducer: "cut -f1",
      m_num: 2,
      r_num: 1,
      conf: {
        "stream.map.output.field.separator": ",",
        "stream.num.map.output.key.fields": 2,
        "mapreduce.map.output.key.field.separator": ",",
        "mapreduce.partition.keypartitioner.options": "-k1,1",
        "mapreduce.partition.keycomparator.options": "-k1,1 -k2,2nr",
      },
    },
    parts: ["oslo,11\noslo,7\noslo,2\noslo,-3\nrome,31\nrome,20\nrome,9\n"],
  },
  {
    rules: "P4",
    title: "all keys with one prefix meet in one part",
    input: { a: Array.from({ length: 60 }, (_, i) => `${i % 5}.${i}\n`).join("") },
    scripts: { "r.py": "import sys\nprint(sorted({l.split('.')[0] for l in sys.stdin}))\n" },
    request: {
      mapper: "cat",
      reducer: "r.py",
      m_num: 3,
      r_num: 3,
      conf: {
        "mapreduce.map.output.key.field.separator": ".",
        "mapreduce.partition.keypartitioner.options": "-k1,1",
      },
    },
    check: (parts) => {
      const seen = [...parts.values()].flatMap(
        (part) => JSON.parse(part.toString().replaceAll("'", '"')) as string[],
      );
      if (seen.toSorted().join("") !== "01234") throw new Error(seen.join(" "));
    },
  },
  {
    rules: "P5",
    title: "range: the parts one after the other are sorted",
    input: {
      a: Array.from({ length: 3_000 }, (_, i) => `${(i * 7919) % 3_001}\tv${i}\n`).join(""),
    },
    request: { mapper: "cat", reducer: "cat", m_num: 3, r_num: 4, partitioner: "range" },
    check: (parts) => {
      const lines = [...parts.values()].map(String).join("").split("\n").slice(0, -1);
      const sorted = lines.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      if (lines.length !== 3_000 || lines.join() !== sorted.join()) throw new Error("not sorted");
      if ([...parts.values()].some((part) => part.length < 1_000)) throw new Error("not spread");
    },
  },
  {
    rules: "P5",
    title: "range: one key above all others, and fewer keys than parts",
    input: { a: `${"hot\tx\n".repeat(5_000)}a\t1\nz\t2\n` },
    request: { mapper: "cat", reducer: "count", m_num: 2, r_num: 6, partitioner: "range" },
    check: (parts) => {
      const text = [...parts.values()].map(String).join("");
      if (parts.size !== 6 || text !== "a\t1\nhot\t5000\nz\t1\n") throw new Error(text);
    },
  },
  {
    rules: "P3 P5",
    title: "range and a numeric comparator",
    input: { a: Array.from({ length: 500 }, (_, i) => `${(i * 37) % 500}\n`).join("") },
    request: { ...comparator("-nr"), r_num: 3, partitioner: "range" },
    check: (parts) => {
      const numbers = [...parts.values()].map(String).join("").split("\n").slice(0, -1).map(Number);
      const expected = Array.from({ length: 500 }, (_, i) => 499 - i);
      if (numbers.join() !== expected.join()) throw new Error(numbers.slice(0, 20).join());
    },
  },
  {
    rules: "P3 P5",
    title: "range, a comparator and fields apart by several bytes",
    input: {
      a: Array.from({ length: 600 }, (_, i) => `${(i * 7) % 11}::${(i * 37) % 600}::x\n`).join(""),
    },
    request: {
      ...comparator("-k2,2nr", { "mapreduce.map.output.key.field.separator": "::" }),
      m_num: 4,
      r_num: 5,
      partitioner: "range",
    },
    check: (parts) => {
      const lines = [...parts.values()].map(String).join("").split("\n").slice(0, -1);
      const numbers = lines.map((line) => Number(line.split("::")[1]));
      const expected = Array.from({ length: 600 }, (_, i) => 599 - i);
      if (numbers.join() !== expected.join()) throw new Error(`${numbers.length} lines`);
    },
  },
  {
    rules: "C1 B1",
    title: "a combiner script behind the built-in mapper",
    input: { a: words },
    scripts,
    request: { mapper: "identity", combiner: "checked.py", reducer: "cat", m_num: 1 },
    parts: ["a\t3\nb\t1\nc\t1\n"],
  },
  {
    rules: "C1",
    title: "a combiner reads sorted pairs, and leaves fewer",
    input: { a: words, b: words },
    scripts,
    request: { mapper: "cat", combiner: "checked.py", reducer: "show.py", m_num: 2, r_num: 1 },
    parts: ["b'a\\t3\\n'\nb'a\\t3\\n'\nb'b\\t1\\n'\nb'b\\t1\\n'\nb'c\\t1\\n'\nb'c\\t1\\n'\n"],
    counters: { "combiner,runs": 2 },
  },
  {
    rules: "C1",
    title: "for each partition by itself",
    input: { a: words },
    scripts,
    request: { mapper: "cat", combiner: "checked.py", reducer: "sum.py", m_num: 1, r_num: 3 },
    lines: ["a\t3", "b\t1", "c\t1"],
  },
  {
    rules: "C1 O2",
    title: "its lines are cut with the reduce options, and sorted again",
    input: { a: "a\t1\nb\t2\n" },
    scripts: {
      "c.py":
        "import sys\nfor l in sys.stdin: k, v = l.split('\\t'); print(chr(219 - ord(k)), v.strip(), 'x', sep=';')\n",
      "show.py": SHOW,
    },
    request: {
      mapper: "cat",
      combiner: "c.py",
      reducer: "show.py",
      m_num: 1,
      conf: {
        "stream.reduce.output.field.separator": ";",
        "stream.num.reduce.output.key.fields": 2,
      },
    },
    parts: ["b'y;2\\tx\\n'\nb'z;1\\tx\\n'\n"],
  },
  {
    rules: "C1",
    title: "one that drops everything",
    input: { a: words },
    request: { mapper: "cat", combiner: "sed d", reducer: "cat", m_num: 2, r_num: 2 },
    parts: ["", ""],
  },
  {
    rules: "C1",
    title: "one that fails, fails the task",
    input: { a: words },
    scripts: { "c.py": "raise SystemExit(9)\n" },
    request: { mapper: "cat", combiner: "c.py", reducer: "cat", m_num: 1, max_attempts: 1 },
    fails: /the combiner exited with 9/,
  },
  {
    rules: "C1",
    title: "never without reducers",
    input: { a: "a\t1\na\t1\n" },
    scripts,
    request: { mapper: "cat", combiner: "sum.py", m_num: 1, r_num: 0 },
    parts: ["a\t1\na\t1\n"],
  },
  {
    rules: "C2",
    title: "a built-in combiner under a script",
    input: { a: words, b: words },
    scripts,
    request: { mapper: "cat", combiner: "sum", reducer: "sum.py", m_num: 2 },
    parts: ["a\t6\nb\t2\nc\t2\n"],
  },
  {
    rules: "C2",
    title: "count is none",
    input: { a: words },
    request: { mapper: "cat", combiner: "count", reducer: "cat" },
    fails: /combiner: .*"count" cannot be one/,
  },
];
