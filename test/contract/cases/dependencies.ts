import { execFileSync } from "node:child_process";
import type { ContractCase } from "../case.ts";

/** Bytes that a Python program writes. */
const made = (code: string) =>
  execFileSync("python3", [
    "-c",
    `import io, sys, tarfile, zipfile\nout = io.BytesIO()\n${code}\nsys.stdout.buffer.write(out.getvalue())`,
  ]);
const zip = (files: Record<string, string>) =>
  made(
    `with zipfile.ZipFile(out, "w") as z:\n${Object.entries(files)
      .map(([n, t]) => `    z.writestr(${JSON.stringify(n)}, ${JSON.stringify(t)})\n`)
      .join("")}`,
  );
const tarGz = (files: Record<string, string>) =>
  made(
    `with tarfile.open(fileobj=out, mode="w:gz") as t:\n${Object.entries(files)
      .map(
        ([n, text]) =>
          `    i = tarfile.TarInfo(${JSON.stringify(n)}); i.size = ${text.length}; t.addfile(i, io.BytesIO(${JSON.stringify(text)}.encode()))\n`,
      )
      .join("")}`,
  );
const WHEEL = zip({
  "shout.py": "def shout(s): return s.upper() + '!'\n",
  "shout-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n",
  "shout-1.0.dist-info/WHEEL":
    "Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
  "shout-1.0.dist-info/RECORD":
    "shout.py,,\nshout-1.0.dist-info/METADATA,,\nshout-1.0.dist-info/WHEEL,,\nshout-1.0.dist-info/RECORD,,\n",
});
const input = { "a.txt": "one\ntwo\n" };
const LS =
  "import os, sys\nsys.stdin.read()\nfor d, _, fs in sorted(os.walk('.')):\n    for f in sorted(fs): print(os.path.join(d, f), open(os.path.join(d, f)).read().strip() if f.endswith('.txt') else '')\n";
const mapOnly = { r_num: 0, m_num: 1 };

export const DEPENDENCIES: ContractCase[] = [
  {
    rules: "W3",
    title: "a file under another name",
    input,
    scripts: { "m.py": LS, "data/words-v2.txt": "w\n" },
    request: { mapper: "m.py", ...mapOnly, files: ["data/words-v2.txt#words.txt"] },
    lines: ["./m.py ", "./words.txt w"],
  },
  {
    rules: "W3",
    title: "archives are folders",
    input,
    scripts: {
      "m.py": LS,
      "d.zip": zip({ "a.txt": "in zip", "sub/b.txt": "deep" }),
      "e.tar.gz": tarGz({ "c.txt": "in tar" }),
    },
    request: { mapper: "m.py", ...mapOnly, files: ["d.zip", "e.tar.gz#e"] },
    lines: ["./d.zip/a.txt in zip", "./d.zip/sub/b.txt deep", "./e/c.txt in tar", "./m.py "],
  },
  {
    rules: "W3",
    title: "an archive that would leave its folder is refused",
    input,
    scripts: { "m.py": LS, "d.zip": zip({ "../evil.txt": "x" }) },
    request: { mapper: "m.py", ...mapOnly, files: ["d.zip"], max_attempts: 1 },
    fails: /d\.zip: entry "\.\.\/evil\.txt"/,
  },
  {
    rules: "W4",
    title: "a requirements.txt becomes a virtual environment",
    input,
    scripts: {
      "m.py": "import sys, shout\nfor line in sys.stdin: print(shout.shout(line.strip()))\n",
      "requirements.txt": "--no-index\n./shout-1.0-py3-none-any.whl\n",
      "shout-1.0-py3-none-any.whl": WHEEL,
    },
    request: {
      mapper: "m.py",
      ...mapOnly,
      files: ["requirements.txt", "shout-1.0-py3-none-any.whl"],
    },
    parts: ["ONE!\nTWO!\n"],
  },
  {
    rules: "W4",
    title: "requirements that cannot be met are said",
    input,
    scripts: { "m.py": LS, "requirements.txt": "--no-index\nno-such-package==1\n" },
    request: { mapper: "m.py", ...mapOnly, files: ["requirements.txt"], max_attempts: 1 },
    fails: /no-such-package/,
  },
  {
    rules: "W5",
    title: "a module maps, combines and reduces",
    input: { a: "b a\na\n", b: "a c\n" },
    scripts: {
      "wc.ts": `export const map = (line: string, emit: (k: string, v?: number) => void) => {
  for (const word of line.split(" ")) emit(word, 1);
};
export function reduce(key: string, values: Iterable<string>, emit: (k: string, v?: number) => void) {
  let sum = 0;
  for (const value of values) sum += Number(value);
  emit(key, sum);
}
export { reduce as combine };
`,
    },
    request: { mapper: "wc.ts", combiner: "wc.ts", reducer: "wc.ts", m_num: 2 },
    parts: ["a\t3\nb\t1\nc\t1\n"],
  },
  {
    rules: "W5 S1",
    title: "a module beside a script; its prints are its log",
    input,
    scripts: {
      "m.mjs": `export function map(line, emit) {
  console.error("reporter:counter:js,lines,1");
  console.log("saw", line);
  emit(line.toUpperCase());
}
`,
    },
    request: { mapper: "m.mjs", reducer: "cut -f1", m_num: 1 },
    parts: ["ONE\nTWO\n"],
    counters: { "js,lines": 2 },
    log: /^saw one\nsaw two\n$/,
  },
  {
    rules: "W5",
    title: "an exception in a module fails the task, with its trace in the log",
    input,
    scripts: { "m.js": "export function map(line) { throw new TypeError('bad ' + line); }\n" },
    request: { mapper: "m.js", ...mapOnly, max_attempts: 1 },
    fails: /the script exited with 1/,
    log: /TypeError: bad one[\s\S]*m\.js:1/,
  },
];
