import type { ContractCase } from "../case.ts";

const WORDS =
  "import sys\nfor line in sys.stdin:\n    for w in line.split(): print(w, 1, sep='\\t')\n";
const SUM = `import sys
from itertools import groupby
for key, lines in groupby((l.rstrip("\\n").split("\\t", 1) for l in sys.stdin), lambda l: l[0]):
    print(key, sum(int(v) for _, v in lines), sep="\\t")
`;
/** Puts the count first, so that it is the key. */
const SWAP =
  "import sys\nfor line in sys.stdin:\n    w, n = line.split()\n    print(n, w, sep='\\t')\n";
const scripts = { "words.py": WORDS, "sum.py": SUM, "swap.py": SWAP };
const input = { a: "b a c\na\nb a\n", b: "a c\n" };

export const JOBS: ContractCase[] = [
  {
    rules: "J1",
    title: "word count, as by a pipe",
    input,
    scripts,
    request: { mapper: "words.py", reducer: "sum.py", m_num: 3, r_num: 1 },
    parts: ["a\t4\nb\t2\nc\t2\n"],
  },
  {
    rules: "J2",
    title: "a map phase, then a reduce phase over it",
    input,
    scripts,
    before: { phase: "map", mapper: "words.py", combiner: "sum", m_num: 2, r_num: 2 },
    request: { phase: "reduce", mapper: "words.py", reducer: "sum.py", m_num: 2, r_num: 2 },
    lines: ["a\t4", "b\t2", "c\t2"],
  },
  {
    rules: "J2",
    title: "a reduce phase by ranges of keys",
    input,
    scripts,
    before: { phase: "map", mapper: "words.py", m_num: 2, r_num: 3, partitioner: "range" },
    request: {
      phase: "reduce",
      mapper: "words.py",
      reducer: "sum",
      m_num: 2,
      r_num: 3,
      partitioner: "range",
    },
    check: (parts) => {
      const text = [...parts.values()].map(String).join("");
      if (text !== "a\t4\nb\t2\nc\t2\n") throw new Error(text);
    },
  },
  {
    rules: "J2",
    title: "which must agree on how pairs are cut",
    input,
    scripts,
    before: { phase: "map", mapper: "words.py", m_num: 2, r_num: 2 },
    request: {
      phase: "reduce",
      mapper: "words.py",
      reducer: "sum.py",
      r_num: 2,
      conf: { "stream.num.map.output.key.fields": 2 },
    },
    fails: /no finished map phase of .* with r_num 2/,
  },
  {
    rules: "J3",
    title: "two steps: count, then sort by count",
    input,
    scripts,
    request: {
      steps: [
        { mapper: "words.py", combiner: "sum", reducer: "sum.py", m_num: 2, r_num: 2 },
        {
          mapper: "swap.py",
          reducer: "cat",
          r_num: 1,
          conf: { "mapreduce.partition.keycomparator.options": "-nr" },
        },
      ],
    },
    check: (parts) => {
      const lines = [...parts.values()].map(String).join("").split("\n").slice(0, -1);
      const [first, ...rest] = lines;
      if (first !== "4\ta" || rest.toSorted().join() !== "2\tb,2\tc") throw new Error(lines.join());
    },
  },
  {
    rules: "J3",
    title: "steps share env, conf and files; a step may be map-only or built-in",
    input,
    scripts: {
      ...scripts,
      "env.py":
        "import os, sys\nfor line in sys.stdin: print(line.strip(), os.environ['WHO'], open('note.txt').read().strip())\n",
      "note.txt": "noted\n",
    },
    request: {
      env: { WHO: "me" },
      files: ["note.txt"],
      steps: [
        { mapper: "words.py", reducer: "count", r_num: 1 },
        { mapper: "env.py", r_num: 0, m_num: 1 },
        { mapper: "identity", r_num: 0, m_num: 1 },
      ],
    },
    parts: ["a\t4 me noted\nb\t2 me noted\nc\t2 me noted\n"],
  },
  {
    rules: "J3",
    title: "what a step sets aside lies with the result",
    input: { a: "1\nx\n2\n" },
    scripts: { "num.py": "import sys\nfor line in sys.stdin: print(int(line))\n" },
    request: {
      steps: [
        { mapper: "num.py", r_num: 0, m_num: 1, max_bad_records: 1 },
        { mapper: "cat", r_num: 0, m_num: 1 },
      ],
    },
    names: ["_bad/1/m-00000", "part-00000"],
    check: (parts) => {
      if (parts.get("_bad/1/m-00000")?.toString() !== "x\n") throw new Error("the bad record");
      if (parts.get("part-00000")?.toString() !== "1\n2\n") throw new Error("the result");
    },
  },
  {
    rules: "J3",
    title: "a step that fails is named",
    input,
    scripts: { ...scripts, "bad.py": "import sys\nsys.stdin.read()\nsys.exit(7)\n" },
    request: {
      max_attempts: 1,
      steps: [
        { mapper: "words.py", reducer: "sum.py" },
        { mapper: "bad.py", r_num: 0 },
      ],
    },
    fails: /step 2: the script exited with 7/,
  },
  {
    rules: "J3",
    title: "what is wrong with a step is said of it",
    input,
    scripts,
    request: {
      steps: [
        { mapper: "words.py", r_num: 1 },
        { reducer: "sum.py", color: "red" },
      ],
    },
    fails: /steps\.0\.reducer: a reducer is needed[\s\S]*steps\.1\.mapper: the field is missing/,
  },
];
