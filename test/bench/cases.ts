import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Contestant, digestOfLines, type Framework, shell } from "./contestants.ts";
import { type Input, makePairs, makeRecords, makeText, md5 } from "./data.ts";
import { measureShell } from "./measure.ts";
import type { Mark } from "./report.ts";

/** What a case is run with. */
export interface Bench {
  framework: Framework;
  /** Scratch of this case, removed afterwards. */
  folder: string;
  /** All sizes are divided by this. */
  divisor: number;
}

export interface PreparedCase {
  contestants: Contestant[];
  marks: Mark[];
  /** The digest that every result must have. */
  expected: string | undefined;
}

export interface Case {
  name: string;
  title: string;
  rounds: number;
  prepare: (bench: Bench) => Promise<PreparedCase>;
}

const MB = 1_000_000;
const REDUCES = 5;
const OURS = "mr";

/** The same interpreter for everybody, by its own path. */
const MAPPER = `#!/usr/bin/python3
import re
import sys

WORD = re.compile(r"[^\\W_]+")

for line in sys.stdin.buffer:
    for word in WORD.findall(line.decode("utf-8", "replace").lower()):
        print(f"{word}\\t1")
`;
const REDUCER = `#!/usr/bin/python3
import sys
from itertools import groupby


def pairs(lines):
    for line in lines:
        word, _, count = line.rstrip("\\n").partition("\\t")
        yield word, int(count)


for word, group in groupby(pairs(sys.stdin), key=lambda pair: pair[0]):
    print(word, sum(count for _, count in group), sep="\\t")
`;
const MODULE = `const WORD = /[\\p{L}\\p{N}]+/gu;
export const map = (line, emit) => {
  for (const word of line.toLowerCase().match(WORD) ?? []) emit(word, 1);
};
`;

/** Two at a time over the input files. */
const eachFile = (command: string) => `ls data | xargs -P2 -I{} sh -c '${command}'`;
const mappers = (into: string) => eachFile(`./mapper.py < data/{} ${into}`);

async function scripts({ framework, folder }: Bench, name: string): Promise<void> {
  for (const [file, text] of [
    ["mapper.py", MAPPER],
    ["reducer.py", REDUCER],
    ["mapper.js", MODULE],
  ] as const) {
    const path = join(folder, file);
    writeFileSync(path, text, { mode: 0o755 });
    await framework.putScript(`${name}/${file}`, path);
  }
}

/** What the reducers of a floor read: sorted, in as many files as there are reducers. */
async function sortedInput(folder: string, from: string): Promise<void> {
  mkdirSync(join(folder, "ready"), { recursive: true });
  await measureShell(
    `${from} | sort -S2G --parallel=2 > all; split -n l/${REDUCES} all ready/part-; rm all`,
    folder,
  );
}

const REDUCERS = "for f in ready/*; do ./reducer.py < $f > /dev/null & done; wait";

function wordCount(bytes: number, rounds: number, marks: Mark[]): Case {
  const name = bytes >= 1_000 * MB ? "wc-1g" : "wc-100m";
  return {
    name,
    title: `Word count, ${bytes / MB} MB in 16 files, unchanged Python scripts`,
    rounds,
    async prepare(bench) {
      const input = makeText(join(bench.folder, "data"), bytes / bench.divisor);
      await prepareWords(bench, name, input);
      await sortedInput(bench.folder, eachFile("./mapper.py < data/{}"));
      const { framework, folder } = bench;
      const digest = (files: string[]) => digestOfLines(files, false);
      return {
        expected: md5(input.counts ?? []),
        marks,
        contestants: [
          shell("floor", `${mappers("> /dev/null")}; ${REDUCERS}`, folder),
          framework.job(OURS, wordRequest(name), digest),
          shell("best shell", bestShell(), folder, digest),
          shell(
            "plain shell",
            "cat data/* | ./mapper.py | sort -S4G --parallel=2 | ./reducer.py > result",
            folder,
            digest,
          ),
        ],
      };
    },
  };
}

async function prepareWords(bench: Bench, name: string, { folder }: Input): Promise<void> {
  await scripts(bench, name);
  bench.framework.addData(name, folder);
}

function wordRequest(name: string): object {
  const script = (file: string) => `${name}/${file}`;
  return {
    mapper: script("mapper.py"),
    reducer: script("reducer.py"),
    data: name,
    m_num: 16,
    r_num: REDUCES,
  };
}

/** Partitioned by the first letter, since any better hash in awk costs more than it brings. */
function bestShell(): string {
  const cut = `awk -F"\\t" -v p=work/{}. "{ print > (p (index(\\"etaoinshrdlcumwfgypbvkjxqz\\", substr(\\$1, 1, 1)) % ${REDUCES})) }"`;
  return [
    eachFile(
      `./mapper.py < data/{} | ${cut}; for p in work/{}.*; do sort -S200M \\$p -o \\$p; done`,
    ).replaceAll("\\$p", "$p"),
    `seq 0 ${REDUCES - 1} | xargs -P2 -I{} sh -c 'sort -m work/*.{} | ./reducer.py > result.{}'`,
  ].join("\n");
}

const combined: Case = {
  name: "wc-sum",
  title: "Word count, 1,000 MB, with the built-in sum as combiner and reducer",
  rounds: 3,
  async prepare(bench) {
    const input = makeText(join(bench.folder, "data"), (1_000 * MB) / bench.divisor);
    await prepareWords(bench, "wc-sum", input);
    const { framework, folder } = bench;
    const digest = (files: string[]) => digestOfLines(files, false);
    const count = `awk -F"\\t" "{ c[\\$1] += \\$2 } END { for (k in c) print k \\"\\t\\" c[k] }"`;
    const add = `awk -F'\\t' '$1 != k { if (NR > 1) print k "\\t" n; k = $1; n = 0 } { n += $2 } END { print k "\\t" n }'`;
    const contestants = [
      framework.job(OURS, { ...wordRequest("wc-sum"), combiner: "sum", reducer: "sum" }, digest),
      shell(
        "shell with awk as combiner",
        `${eachFile(`./mapper.py < data/{} | ${count} | sort > work/{}`)}\nsort -m work/* | ${add} > result`,
        folder,
        digest,
      ),
    ];
    return {
      expected: md5(input.counts ?? []),
      contestants,
      marks: [{ what: "wall", of: OURS, to: "shell with awk as combiner", atMost: 0.6 }],
    };
  },
};

const sort: Case = {
  name: "sort-1g",
  title: "Sort, 1,000 MB of 100-byte records, 16 maps, 8 reduces",
  rounds: 5,
  async prepare(bench) {
    const { folder: data } = makeRecords(join(bench.folder, "data"), (1_000 * MB) / bench.divisor);
    bench.framework.addData("sort-1g", data);
    const { framework, folder } = bench;
    const digest = (files: string[]) => digestOfLines(files, true);
    const request = { mapper: "cat", reducer: "cat", data: "sort-1g", m_num: 16, r_num: 8 };
    const identity = { ...request, mapper: "identity", reducer: "identity" };
    const pipes = `${eachFile("cat data/{} | cat > work/{}")}; ls work | xargs -P2 -I{} sh -c 'cat work/{} | cat > result.{}'`;
    return {
      expected: digestOfLines(listed(data), false),
      contestants: [
        shell("pipes and files, no sort", pipes, folder),
        framework.job(`${OURS}, cat`, request, digest),
        framework.job(`${OURS}, identity`, identity, digest),
        framework.job(`${OURS}, by ranges`, { ...request, partitioner: "range" }, digest),
        shell(
          "best shell",
          `${eachFile("sort -S200M data/{} -o work/{}")}; sort -m work/* > result`,
          folder,
          digest,
        ),
        shell("plain shell", "cat data/* | sort -S4G --parallel=2 | cat > result", folder, digest),
      ],
      marks: [
        { what: "wall", of: `${OURS}, cat`, to: "pipes and files, no sort", atMost: 4 },
        { what: "wall", of: `${OURS}, cat`, to: "best shell", atMost: 0.45 },
        { what: "wall", of: `${OURS}, identity`, to: `${OURS}, cat`, atMost: 1 },
        { what: "peak", of: `${OURS}, cat`, atMost: 400 },
      ],
    };
  },
};

function listed(folder: string): string[] {
  return Array.from({ length: 16 }, (_, i) => join(folder, `part-${String(i).padStart(5, "0")}`));
}

function pairs(kind: "distinct" | "one"): Case {
  const name = kind === "one" ? "hot-key" : "distinct";
  return {
    name,
    title: kind === "one" ? "One hot key, 10 M lines" : "10 M distinct keys",
    rounds: 3,
    async prepare(bench) {
      const lines = Math.ceil(10_000_000 / bench.divisor / 16) * 16;
      const { folder: data } = makePairs(join(bench.folder, "data"), lines, kind);
      await prepareWords(bench, name, { folder: data });
      await sortedInput(bench.folder, "cat data/*");
      const { framework, folder } = bench;
      // One key cannot be shared out among the floor's reducers either.
      const reducers = kind === "one" ? "cat ready/* | ./reducer.py > /dev/null" : REDUCERS;
      const digest = (files: string[]) => digestOfLines(files, kind === "one");
      const expected =
        kind === "one" ? md5([`the-hot-key\t${lines}`]) : digestOfLines(listed(data), false);
      return {
        expected,
        contestants: [
          shell("floor", `${eachFile("cat data/{} > /dev/null")}; ${reducers}`, folder),
          framework.job(OURS, { ...wordRequest(name), mapper: "cat" }, digest),
        ],
        marks: [{ what: "wall", of: OURS, to: "floor", atMost: 1.3 }],
      };
    },
  };
}

const smallFiles: Case = {
  name: "small-files",
  title: "Word count over 10,000 files of 1 KB",
  rounds: 5,
  async prepare(bench) {
    const files = Math.ceil(10_000 / bench.divisor);
    const input = makeText(join(bench.folder, "data"), files * 1_000, files);
    await prepareWords(bench, "small-files", input);
    await sortedInput(bench.folder, "cat data/* | ./mapper.py");
    const { framework, folder } = bench;
    const digest = (parts: string[]) => digestOfLines(parts, false);
    const halves = `ls data > work/all; split -n l/2 work/all work/list-; ls work/list-* | xargs -P2 -I{} sh -c '(cd data; xargs cat < ../{}) | ./mapper.py > /dev/null'`;
    return {
      expected: md5(input.counts ?? []),
      contestants: [
        shell("floor", `${halves}; ${REDUCERS}`, folder),
        framework.job(OURS, wordRequest("small-files"), digest),
      ],
      marks: [{ what: "wall", of: OURS, to: "floor", atMost: 1.3 }],
    };
  },
};

const mapOnly: Case = {
  name: "map-only",
  title: "Map only and a module as mapper, 100 MB",
  rounds: 5,
  async prepare(bench) {
    const input = makeText(join(bench.folder, "data"), (100 * MB) / bench.divisor);
    await prepareWords(bench, "map-only", input);
    const { framework, folder } = bench;
    const request = { ...wordRequest("map-only"), reducer: undefined, r_num: 0 };
    const digest = (files: string[]) => digestOfLines(files, false);
    await measureShell("cat data/* | ./mapper.py > mapped", folder);
    return {
      expected: digestOfLines([join(folder, "mapped")], false),
      contestants: [
        shell("floor", mappers("> result.{}"), folder, digest),
        framework.job(`${OURS}, Python`, request, digest),
        framework.job(`${OURS}, a JS module`, { ...request, mapper: "map-only/mapper.js" }, digest),
      ],
      marks: [{ what: "wall", of: `${OURS}, Python`, to: "floor", atMost: 1.25 }],
    };
  },
};

const manyMaps: Case = {
  name: "many-maps",
  title: "Word count, 1,000 MB, as 16 and as 1,000 map tasks",
  rounds: 3,
  async prepare(bench) {
    const input = makeText(join(bench.folder, "data"), (1_000 * MB) / bench.divisor);
    await prepareWords(bench, "many-maps", input);
    const request = wordRequest("many-maps");
    const digest = (files: string[]) => digestOfLines(files, false);
    const many = Math.ceil(1_000 / bench.divisor);
    return {
      expected: md5(input.counts ?? []),
      contestants: [
        bench.framework.job("16 maps", request, digest),
        bench.framework.job(`${many} maps`, { ...request, m_num: many }, digest),
      ],
      marks: [{ what: "wall", of: `${many} maps`, to: "16 maps", atMost: 1.25 }],
    };
  },
};

const oneLine: Case = {
  name: "one-line",
  title: "A job of one line on a warm cluster, from the request to the report",
  rounds: 100,
  async prepare({ framework, folder }) {
    const data = join(folder, "data");
    mkdirSync(data);
    writeFileSync(join(data, "line"), "hello world\n");
    framework.addData("one-line", data);
    const request = { mapper: "cat", reducer: "cat", data: "one-line", r_num: 1 };
    return { expected: undefined, contestants: [framework.job(OURS, request)], marks: [] };
  },
};

export const CASES: Case[] = [
  wordCount(100 * MB, 5, [
    { what: "wall", of: OURS, to: "floor", atMost: 1.25 },
    { what: "own", of: OURS, atMost: 0.12 },
  ]),
  wordCount(1_000 * MB, 3, [
    { what: "wall", of: OURS, to: "floor", atMost: 1.15 },
    { what: "wall", of: OURS, to: "best shell", atMost: 0.6 },
    { what: "own", of: OURS, atMost: 0.12 },
    { what: "peak", of: OURS, atMost: 400 },
  ]),
  combined,
  sort,
  pairs("distinct"),
  pairs("one"),
  smallFiles,
  mapOnly,
  manyMaps,
  oneLine,
];
