import { gunzipSync, zstdDecompressSync } from "node:zlib";
import type { ContractCase } from "../case.ts";

const SHOW = "import sys\nfor line in sys.stdin.buffer: print(repr(line))\n";
const scripts = { "show.py": SHOW };
const fail = (code: number) =>
  `import sys\nsys.stdin.read()\nprint("partial")\nprint("why it failed", file=sys.stderr)\nsys.exit(${code})\n`;
const lazy = "print('early')\n";
const big = "some words of a line\n".repeat(20_000);

export const PRINTING: ContractCase[] = [
  {
    rules: "O1",
    title: "how a printed line is a pair",
    input: { a: "key\tvalue\ttail\nbare\n\tvalue\n\n" },
    scripts,
    request: { mapper: "cat", reducer: "show.py", m_num: 1 },
    parts: [
      "b'\\t\\n'\nb'\\tvalue\\n'\nb'bare\\t\\n'\nb'key\\tvalue\\ttail\\n'\n".replace(
        "b'\\t\\n'\nb'\\tvalue\\n'",
        "b'\\tvalue\\n'\nb'\\t\\n'",
      ),
    ],
  },
  {
    rules: "O2",
    title: "another separator, and keys of two fields",
    input: { a: "b,2,x,y\na,1,z\nb,1,x\nshort,1\nnone\n" },
    scripts,
    request: {
      mapper: "cat",
      reducer: "show.py",
      m_num: 1,
      conf: { "stream.map.output.field.separator": ",", "stream.num.map.output.key.fields": 2 },
    },
    parts: ["b'a,1\\tz\\n'\nb'b,1\\tx\\n'\nb'b,2\\tx,y\\n'\nb'none\\t\\n'\nb'short,1\\t\\n'\n"],
  },
  {
    rules: "O2",
    title: "a separator of several bytes",
    input: { a: "b::2::x\na::1\n" },
    scripts,
    request: {
      mapper: "cat",
      reducer: "show.py",
      m_num: 1,
      conf: { "stream.map.output.field.separator": "::" },
    },
    parts: ["b'a\\t1\\n'\nb'b\\t2::x\\n'\n"],
  },
  {
    rules: "O2",
    title: "keys of two fields at TAB",
    input: { a: "k\t2\tv\nk\t1\tv\nk\n" },
    scripts,
    request: {
      mapper: "cat",
      reducer: "show.py",
      m_num: 1,
      conf: { "stream.num.map.output.key.fields": 2 },
    },
    parts: ["b'k\\t\\n'\nb'k\\t1\\tv\\n'\nb'k\\t2\\tv\\n'\n"],
  },
  {
    rules: "O3",
    title: "a part for each reducer, as printed, and _SUCCESS",
    input: { a: "a\nb\nc\n" },
    scripts: { "r.py": "import sys\nsys.stdin.read()\nprint('no newline', end='')\n" },
    request: { mapper: "cat", reducer: "r.py", r_num: 3, m_num: 1 },
    names: ["part-00000", "part-00001", "part-00002"],
    parts: ["no newline\n", "no newline\n", "no newline\n"],
  },
  {
    rules: "O4",
    title: "without reducers the mappers' lines are the result",
    input: { a: "x\ty\n\nz" },
    request: { mapper: "cat", r_num: 0, m_num: 1 },
    names: ["part-00000"],
    parts: ["x\ty\n\nz\n"],
  },
  {
    rules: "O5",
    title: "Hadoop's format: the separator in every line",
    input: { a: "b\na\tx\ty\n" },
    request: { mapper: "cat", reducer: "cut -f1,2", m_num: 1, output_format: "hadoop" },
    parts: ["a\tx\nb\t\n"],
  },
  {
    rules: "O5",
    title: "Hadoop's format without reducers",
    input: { a: "b\na\tx\n" },
    request: { mapper: "cat", m_num: 1, r_num: 0, output_format: "hadoop" },
    parts: ["b\t\na\tx\n"],
  },
  {
    rules: "O2 O5",
    title: "the result's own separator, at the reduce separator",
    input: { a: "k\tv\n" },
    scripts: { "r.py": "import sys\nsys.stdin.read()\nprint('a;b;c')\nprint('bare')\n" },
    request: {
      mapper: "cat",
      reducer: "r.py",
      m_num: 1,
      conf: {
        "stream.reduce.output.field.separator": ";",
        "stream.num.reduce.output.key.fields": 2,
        "mapreduce.output.textoutputformat.separator": " => ",
      },
    },
    parts: ["a;b => c\nbare\n"],
  },
  {
    rules: "O6",
    title: "gzipped parts",
    input: { a: "b\na\n" },
    request: {
      mapper: "cat",
      reducer: "cut -f1",
      m_num: 1,
      conf: { "mapreduce.output.fileoutputformat.compress": true },
    },
    names: ["part-00000.gz"],
    check: (parts) => {
      const text = gunzipSync(parts.get("part-00000.gz") ?? Buffer.alloc(0)).toString();
      if (text !== "a\nb\n") throw new Error(text);
    },
  },
  {
    rules: "O6",
    title: "parts by zstd",
    input: { a: "b\na\n" },
    request: {
      mapper: "cat",
      r_num: 0,
      m_num: 1,
      conf: {
        "mapreduce.output.fileoutputformat.compress": "true",
        "mapreduce.output.fileoutputformat.compress.codec":
          "org.apache.hadoop.io.compress.ZStandardCodec",
      },
    },
    names: ["part-00000.zst"],
    check: (parts) => {
      const text = zstdDecompressSync(parts.get("part-00000.zst") ?? Buffer.alloc(0)).toString();
      if (text !== "b\na\n") throw new Error(text);
    },
  },
  {
    rules: "O7",
    title: "an exit status other than 0 fails, and says why",
    input: { a: "a\n" },
    scripts: { "m.py": fail(3) },
    request: { mapper: "m.py", r_num: 0, m_num: 1, max_attempts: 1 },
    fails: /the script exited with 3/,
    log: /why it failed/,
  },
  {
    rules: "O7",
    title: "unless the job says that it does not",
    input: { a: "a\n" },
    scripts: { "m.py": fail(3) },
    request: {
      mapper: "m.py",
      r_num: 0,
      m_num: 1,
      conf: { "stream.non.zero.exit.is.failure": "false" },
    },
    parts: ["partial\n"],
  },
  {
    rules: "O8",
    title: "input left unread fails",
    input: { a: big },
    scripts: { "m.py": lazy },
    request: { mapper: "m.py", r_num: 0, m_num: 1, max_attempts: 1 },
    fails: /ended before it had read all its input/,
  },
  {
    rules: "O8",
    title: "unless the job allows it: then all that was printed is kept",
    input: { a: big },
    scripts: { "m.py": lazy },
    request: {
      mapper: "m.py",
      r_num: 0,
      m_num: 1,
      conf: { "stream.minRecWrittenToEnableSkip_": 0 },
    },
    parts: ["early\n"],
  },
  {
    rules: "O8",
    title: "a reducer that reads nothing",
    input: { a: big },
    request: {
      mapper: "cat",
      reducer: "true",
      m_num: 1,
      conf: { "stream.minRecWrittenToEnableSkip_": 0 },
    },
    parts: [""],
  },
  {
    rules: "O9",
    title: "a line beyond the limit is refused, in a result",
    input: { a: "a\n" },
    scripts: {
      "m.py":
        "import sys\nsys.stdin.read()\nfor i in range(64): sys.stdout.write('x' * 1_000_000)\n",
    },
    request: { mapper: "m.py", r_num: 0, m_num: 1, max_attempts: 1 },
    fails: /the script printed a line of more than 1048576 bytes/,
  },
  {
    rules: "O9",
    title: "and on the way to a reducer",
    input: { a: "a\n" },
    scripts: {
      "m.py":
        "import sys\nsys.stdin.read()\nfor i in range(64): sys.stdout.write('x' * 1_000_000)\n",
    },
    request: { mapper: "m.py", reducer: "cat", m_num: 1, max_attempts: 1 },
    fails: /the script printed a line of more than 1048576 bytes/,
  },
  {
    rules: "S1",
    title: "counters and status are consumed",
    input: { a: "a\nb\n", b: "c\n" },
    scripts: {
      "m.py": `import sys
for line in sys.stdin:
    print("reporter:counter:my group,lines read,1", file=sys.stderr)
    print("reporter:status:at", line.strip(), file=sys.stderr)
    print(line, end="")
print("reporter:counter:my group,x,-5", file=sys.stderr)
`,
    },
    request: { mapper: "m.py", reducer: "cut -f1", m_num: 2 },
    parts: ["a\nb\nc\n"],
    counters: { "my group,lines read": 3, "my group,x": -10 },
    log: /^$/,
  },
  {
    rules: "S2",
    title: "other lines are logged; malformed reporter lines are warnings",
    input: { a: "a\n" },
    scripts: {
      "m.py": `import sys\nsys.stdin.read()\nsys.stderr.write("hello\\nreporter:counter:g,n,many\\nreporter:counter:g\\nlast")\n`,
    },
    request: { mapper: "m.py", r_num: 0, m_num: 1 },
    parts: [""],
    counters: {},
    log: /^hello\nwarning: malformed reporter line: .*many\nwarning: malformed reporter line: .*\nlast\n$/,
  },
  {
    rules: "S3",
    title: "10 MB to stderr before the first line is read, and 10 MB after the last",
    input: { a: big },
    scripts: {
      "m.py": `import sys
sys.stderr.write(("x" * 99 + "\\n") * 100_000)
n = len(sys.stdin.read())
sys.stderr.write(("y" * 99 + "\\n") * 100_000)
print(n)
`,
    },
    request: { mapper: "m.py", r_num: 0, m_num: 1 },
    parts: [`${big.length}\n`],
    log: /^x{99}\n[\s\S]*bytes left out[\s\S]*y{99}\n$/,
  },
  {
    rules: "S3",
    title: "10 MB printed before the first line is read",
    input: { a: big },
    scripts: {
      "m.py":
        "import sys\nsys.stdout.write(('x' * 99 + '\\n') * 100_000)\nsys.stdout.flush()\nprint(len(sys.stdin.read()))\n",
    },
    request: { mapper: "m.py", reducer: "count", m_num: 1 },
    lines: [`${big.length}\t1`, `${"x".repeat(99)}\t100000`],
  },
  {
    rules: "S4",
    title: "a silent task is ended",
    input: { a: "a\n" },
    scripts: { "m.py": "import sys, time\nsys.stdin.read()\ntime.sleep(600)\n" },
    request: { mapper: "m.py", r_num: 0, m_num: 1, max_attempts: 1, task_timeout: 0.5 },
    fails: /gave no sign of life for 0.5 s/,
  },
  {
    rules: "S4",
    title: "one that says something is not",
    input: { a: "a\n" },
    scripts: {
      "m.py":
        "import sys, time\nsys.stdin.read()\nfor i in range(12):\n    time.sleep(0.25)\n    print('.', file=sys.stderr)\nprint('done')\n",
    },
    request: {
      mapper: "m.py",
      r_num: 0,
      m_num: 1,
      max_attempts: 1,
      conf: { "mapreduce.task.timeout": 2_000 },
    },
    parts: ["done\n"],
  },
];
