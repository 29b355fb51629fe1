import { execFileSync } from "node:child_process";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { ContractCase } from "../case.ts";

/** Says the bytes of each line that it reads. */
const SHOW = `import sys
for line in sys.stdin.buffer:
    print(repr(line))
`;
/** Says that it runs, and what it reads. */
const HELLO = `import sys
print("started", len(sys.stdin.buffer.read()))
`;
const every = Uint8Array.from(
  { length: 254 },
  (_, i) => [...Array(256).keys()].filter((b) => b !== 10 && b !== 13)[i] ?? 0,
);
const bzip2 = (text: string) =>
  execFileSync(
    "python3",
    ["-c", "import sys, bz2; sys.stdout.buffer.write(bz2.compress(sys.stdin.buffer.read()))"],
    { input: text },
  );
const shown = { mapper: "show.py", r_num: 0, m_num: 1 };
const scripts = { "show.py": SHOW };

export const READING: ContractCase[] = [
  {
    rules: "I1",
    title: "a mapper reads lines ended by LF, the last one too",
    input: { a: "one\ntwo" },
    scripts,
    request: shown,
    parts: ["b'one\\n'\nb'two\\n'\n"],
  },
  {
    rules: "I1",
    title: "each file's last line is ended",
    input: { a: "one", b: "two", c: "three\n" },
    scripts,
    request: shown,
    parts: ["b'one\\n'\nb'two\\n'\nb'three\\n'\n"],
  },
  {
    rules: "I2",
    title: "CRLF, lone CR and LF end records",
    input: { a: "a\r\nb\rc\n\nd\r\r\ne\n\rf" },
    scripts,
    request: shown,
    parts: [["a", "b", "c", "", "d", "", "e", "", "f"].map((s) => `b'${s}\\n'\n`).join("")],
  },
  {
    rules: "I2 O3",
    title: "CRLF and CR that a script prints become LF",
    input: { a: "x\n" },
    scripts: {
      "crlf.py": `import sys\nsys.stdout.buffer.write(b"a\\r\\nb\\rc")\nsys.stdin.read()\n`,
    },
    request: { mapper: "crlf.py", r_num: 0, m_num: 1 },
    parts: ["a\nb\nc\n"],
  },
  {
    rules: "I3",
    title: "cuts fall between records, whatever their length",
    input: { a: `${"x".repeat(50)}\n1\n22\n333\n${"y".repeat(70)}\n4` },
    request: { mapper: "cat", r_num: 0, m_num: 9 },
    check: (parts) => {
      if (parts.size !== 9) throw new Error(`${parts.size} parts`);
      const text = Buffer.concat([...parts.values()]).toString();
      if (text !== `${"x".repeat(50)}\n1\n22\n333\n${"y".repeat(70)}\n4\n`) throw new Error(text);
    },
  },
  {
    rules: "I3",
    title: "CRLF across a cut is one line end",
    input: { a: "ab\r\ncd\r\nef\r\ngh\r\n" },
    request: { mapper: "cat", r_num: 0, m_num: 16 },
    lines: ["ab", "cd", "ef", "gh"],
  },
  {
    rules: "I4",
    title: "gzip, of several members",
    input: { "a.gz": Buffer.concat([gzipSync("one\ntwo\n"), gzipSync("three")]) },
    scripts,
    request: { ...shown, m_num: 3 },
    lines: ["b'one\\n'", "b'two\\n'", "b'three\\n'"],
  },
  {
    rules: "I4",
    title: "zstd, of several frames",
    input: {
      "a.zst": Buffer.concat([
        zstdCompressSync("one\n"),
        zstdCompressSync("two\n"),
        zstdCompressSync("three"),
      ]),
    },
    request: { mapper: "cat", r_num: 0, m_num: 2 },
    lines: ["one", "two", "three"],
  },
  {
    rules: "I4",
    title: "bzip2, of several streams",
    input: { "a.bz2": Buffer.concat([bzip2("one\r\ntwo\n"), bzip2("three")]) },
    request: { mapper: "cat", r_num: 0, m_num: 1 },
    parts: ["one\ntwo\nthree\n"],
  },
  {
    rules: "I4",
    title: "a compressed file that is broken off is an error",
    input: { "a.gz": gzipSync("one\ntwo\n".repeat(1_000)).subarray(0, 30) },
    request: { mapper: "cat", r_num: 0, m_num: 1 },
    fails: /a\.gz cannot be decompressed/,
  },
  {
    rules: "I4",
    title: "other compressed files are refused",
    input: { "a.xz": "whatever" },
    request: { mapper: "cat", r_num: 0, m_num: 1 },
    fails: /a\.xz: compressed inputs end in \.gz, \.zst or \.bz2/,
  },
  {
    rules: "I5",
    title: "every byte but CR and LF passes through mapper, shuffle and reducer",
    input: { a: every },
    request: { mapper: "cat", reducer: "cat", m_num: 1 },
    parts: [Buffer.concat([every, Buffer.from("\n")])],
  },
  {
    rules: "I6",
    title: "mapper and reducer start without input",
    input: { a: "" },
    scripts: { "hello.py": HELLO },
    request: { mapper: "hello.py", reducer: "hello.py", m_num: 2, r_num: 2 },
    check: (parts) => {
      const texts = [...parts.values()].map(String).toSorted();
      if (texts.join("") !== "started 0\nstarted 22\n") throw new Error(texts.join("|"));
    },
  },
  {
    rules: "I7",
    title: "a reducer reads keys in byte order, the separator always",
    input: { a: "b\t2\na\nB\t1\n\u00e9\tx\nb\t2\n\t\n" },
    scripts,
    request: { mapper: "cat", reducer: "show.py", m_num: 1 },
    parts: ["b'\\t\\n'\nb'B\\t1\\n'\nb'a\\t\\n'\nb'b\\t2\\n'\nb'b\\t2\\n'\nb'\\xc3\\xa9\\tx\\n'\n"],
  },
  {
    rules: "I7",
    title: "a key that is the beginning of another comes first, also before bytes below TAB",
    input: { a: "a\u0001\t1\na\t2\nab\t3\na b\t4\n" },
    request: { mapper: "cat", reducer: "cut -f2", m_num: 1 },
    parts: ["2\n1\n4\n3\n"],
  },
  {
    rules: "I8",
    title: "several inputs are read in their order",
    input: { "x/1": "x1\n", "y/1": "y1\n", "z/1": "z1\n" },
    request: { mapper: "cat", r_num: 0, m_num: 1, data: ["input/z", "input/x"] },
    parts: ["z1\nx1\n"],
  },
  {
    rules: "I8",
    title: "patterns match names and folders",
    input: {
      "2026-01": "a\n",
      "2026-02/x": "b\n",
      "2026-02/y/z": "c\n",
      "2025-12": "d\n",
      "old/2026-03": "e\n",
    },
    request: { mapper: "cat", r_num: 0, m_num: 1, data: "input/2026-*" },
    lines: ["a", "b", "c"],
  },
  {
    rules: "I8",
    title: "patterns with sets, alternatives and two stars",
    input: {
      a1: "a1\n",
      a2: "a2\n",
      a3: "a3\n",
      b1: "b1\n",
      "c/d/e.log": "deep\n",
      "c/e.txt": "no\n",
    },
    request: {
      mapper: "cat",
      r_num: 0,
      m_num: 1,
      data: ["input/a[1-2]", "input/{b1,zz}", "input/**.log", "input/a[^1-2]"],
    },
    parts: ["a1\na2\nb1\ndeep\na3\n"],
  },
  {
    rules: "I8",
    title: "what is named twice is read twice",
    input: { a: "a\n", b: "b\n" },
    request: { mapper: "cat", r_num: 0, m_num: 1, data: ["input", "input/a"] },
    lines: ["a", "a", "b"],
  },
  {
    rules: "I8",
    title: "hidden names are not data, unless they are named",
    input: {
      _SUCCESS: "no\n",
      ".hidden": "no\n",
      "_bad/m-00000": "bad\n",
      "sub/_x": "no\n",
      a: "a\n",
    },
    request: { mapper: "cat", r_num: 0, m_num: 1, data: ["input", "input/_bad/"] },
    lines: ["a", "bad"],
  },
  {
    rules: "I8",
    title: "nor are hidden folders that a pattern would take in",
    input: {
      "_bad/m-00000": "no\n",
      ".git/x": "no\n",
      "sub/_tmp/x": "no\n",
      "sub/a": "a\n",
      "]x": "b\n",
    },
    request: { mapper: "cat", r_num: 0, m_num: 1, data: ["input/*", "input/[\\]z]x"] },
    lines: ["a", "b", "b"],
  },
  {
    rules: "I8",
    title: "a pattern that matches nothing is refused",
    input: { a: "a\n" },
    request: { mapper: "cat", r_num: 0, data: "input/b*" },
    fails: /data: nothing in container input matches b\*/,
  },
  {
    rules: "I9",
    title: "offsets and the map input separator",
    input: { a: "one\r\ntwo\rthree\n" },
    request: {
      mapper: "cat",
      r_num: 0,
      m_num: 3,
      conf: { "stream.map.input.ignoreKey": "false", "stream.map.input.field.separator": "|" },
    },
    lines: ["0|one", "5|two", "9|three"],
  },
  {
    rules: "I9",
    title: "the separator that reducers and combiners read",
    input: { a: "k\tv\nk\n" },
    scripts,
    request: {
      mapper: "cat",
      combiner: "sed s/::/:/",
      reducer: "show.py",
      m_num: 1,
      conf: {
        "stream.reduce.input.field.separator": "::",
        "stream.reduce.output.field.separator": ":",
      },
    },
    lines: ["b'k::\\n'", "b'k::v\\n'"],
  },
];
