import type { ContractCase } from "../case.ts";

const ENV = `import os, sys
sys.stdin.read()
for name in sys.argv[1:]:
    print(name, os.environ.get(name, "(none)"), sep="=")
`;
const scripts = { "env.py": ENV };
const input = { "a.txt": "one\ntwo\n" };
const JOB = "\\d{8}-\\d{6}-\\w{6}";

function matches(...patterns: string[]) {
  return (parts: Map<string, Buffer>) => {
    const text = Buffer.concat([...parts.values()]).toString();
    const pattern = new RegExp(`^${patterns.join("\\n")}\\n$`);
    if (!pattern.test(text)) throw new Error(`${text} is not ${pattern}`);
  };
}

const mapEnv = (...names: string[]) => ({
  mapper: `env.py ${names.join(" ")}`,
  r_num: 0,
  m_num: 1,
});

export const RUNNING: ContractCase[] = [
  {
    rules: "W1",
    title: "the working directory holds the script and its files, and nothing else",
    input,
    scripts: {
      "lib/ls.py": `import os, sys\nsys.stdin.read()\nprint(sorted(os.listdir(".")))\nopen("left", "w")\n`,
      "words.txt": "w\n",
    },
    request: { mapper: "lib/ls.py", reducer: "lib/ls.py", files: ["words.txt"], m_num: 2 },
    lines: ["['ls.py', 'words.txt']"],
  },
  {
    rules: "W1 W2",
    title: "files are imported and executed from there",
    input,
    scripts: {
      "m.py": "import helper, sys\nfor line in sys.stdin: print(helper.up(line), end='')\n",
      "helper.py": "def up(s): return s.upper()\n",
    },
    request: { mapper: "m.py", files: ["helper.py"], r_num: 0, m_num: 1 },
    parts: ["ONE\nTWO\n"],
  },
  {
    rules: "W2",
    title: "a #! line picks the interpreter, and its options",
    input,
    scripts: {
      up: "#!/usr/bin/env -S sed -u\ns/o/0/\n",
      "m.sh": '#!/bin/bash -e\nread x; echo "$x $1 $2"; cat\n',
    },
    request: { mapper: "m.sh 'a b' \"c\"", r_num: 0, m_num: 1 },
    parts: ["one a b c\ntwo\n"],
  },
  {
    rules: "W2",
    title: "node runs .js, .mjs and .ts",
    input,
    scripts: {
      "m.ts":
        "const x: number = 1;\nprocess.stdin.on('data', (d) => process.stdout.write(String(d).toUpperCase() + x));\n",
    },
    request: { mapper: "m.ts", r_num: 0, m_num: 1 },
    parts: ["ONE\nTWO\n1\n"],
  },
  {
    rules: "W2",
    title: "programs of the worker, by a bare word or a path",
    input,
    request: { mapper: "tr a-z A-Z", reducer: "/usr/bin/cut -f1", m_num: 1 },
    parts: ["ONE\nTWO\n"],
  },
  {
    rules: "W2",
    title: "quotes around a script's name",
    input,
    scripts: { "up.sh": "#!/bin/sh\ntr a-z A-Z\n" },
    request: { mapper: "'tr' 'a-z' \"A-Z\"", r_num: 0, m_num: 1 },
    parts: ["ONE\nTWO\n"],
  },
  {
    rules: "W2",
    title: "there is no shell",
    input,
    scripts: { "args.py": "import sys\nsys.stdin.read()\nprint(sys.argv[1:])\n" },
    request: { mapper: "args.py $HOME ; echo `x` > y * 'q r'", r_num: 0, m_num: 1 },
    parts: ["['$HOME', ';', 'echo', '`x`', '>', 'y', '*', 'q r']\n"],
  },
  {
    rules: "W2",
    title: "a program that is nowhere is named",
    input,
    request: { mapper: "no-such-program -x", r_num: 0, m_num: 1 },
    fails:
      /there is no no-such-program: neither a script of dfs-scripts nor a program of this worker/,
  },
  {
    rules: "E1",
    title: "the names of job and task, in a mapper",
    input,
    scripts,
    request: {
      ...mapEnv(
        "mapreduce_job_id",
        "mapreduce_job_name",
        "mapreduce_job_maps",
        "mapreduce_job_reduces",
        "mapreduce_task_id",
        "mapreduce_task_attempt_id",
        "mapreduce_task_partition",
        "mapreduce_task_ismap",
        "mapreduce_task_is_map",
        "mapreduce_task_output_dir",
        "mapreduce_job_local_dir",
      ),
      name: "my job",
    },
    check: matches(
      `mapreduce_job_id=${JOB}`,
      "mapreduce_job_name=my job",
      "mapreduce_job_maps=1",
      "mapreduce_job_reduces=0",
      `mapreduce_task_id=${JOB}/m-00000`,
      `mapreduce_task_attempt_id=${JOB}/m-00000/\\d+-\\d+`,
      "mapreduce_task_partition=0",
      "mapreduce_task_ismap=true",
      "mapreduce_task_is_map=true",
      `mapreduce_task_output_dir=dfs-dest/${JOB}`,
      "mapreduce_job_local_dir=/.*",
    ),
  },
  {
    rules: "E1",
    title: "and in a reducer, which has no input file",
    input,
    scripts,
    request: {
      mapper: "identity",
      reducer:
        "env.py mapreduce_job_maps mapreduce_job_reduces mapreduce_task_partition mapreduce_task_is_map mapreduce_map_input_file",
      m_num: 3,
      r_num: 2,
    },
    check: matches(
      "mapreduce_job_maps=3",
      "mapreduce_job_reduces=2",
      "mapreduce_task_partition=0",
      "mapreduce_task_is_map=false",
      "mapreduce_map_input_file=\\(none\\)",
      "mapreduce_job_maps=3",
      "mapreduce_job_reduces=2",
      "mapreduce_task_partition=1",
      "mapreduce_task_is_map=false",
      "mapreduce_map_input_file=\\(none\\)",
    ),
  },
  {
    rules: "E2",
    title: "the input file and the place in it",
    input,
    scripts,
    request: mapEnv(
      "mapreduce_map_input_file",
      "mapreduce_map_input_start",
      "mapreduce_map_input_length",
    ),
    parts: [
      "mapreduce_map_input_file=input/a.txt\nmapreduce_map_input_start=0\nmapreduce_map_input_length=8\n",
    ],
  },
  {
    rules: "E2",
    title: "a mapper that asks for its file is started for each",
    input: { a: "x\ny\n", b: "x\n", c: "z\n" },
    scripts: {
      "index.py":
        "import os, sys\nfor line in sys.stdin: print(line.strip(), os.environ['mapreduce_map_input_file'], sep='\\t')\n",
    },
    request: { mapper: "index.py", reducer: "cat", m_num: 1 },
    parts: ["x\tinput/a\nx\tinput/b\ny\tinput/a\nz\tinput/c\n"],
  },
  {
    rules: "E2",
    title: "one that does not ask is started once",
    input: { a: "x\n", b: "y\n" },
    scripts: { "count.py": "import sys\nprint(len(list(sys.stdin)))\n" },
    request: { mapper: "count.py", r_num: 0, m_num: 1 },
    parts: ["2\n"],
  },
  {
    rules: "E3",
    title: "old names",
    input,
    scripts,
    request: mapEnv(
      "map_input_file",
      "map_input_start",
      "map_input_length",
      "mapred_job_id",
      "mapred_task_id",
      "mapred_tip_id",
      "mapred_task_partition",
      "mapred_task_is_map",
      "mapred_map_tasks",
      "mapred_reduce_tasks",
    ),
    check: matches(
      "map_input_file=input/a.txt",
      "map_input_start=0",
      "map_input_length=8",
      `mapred_job_id=${JOB}`,
      `mapred_task_id=${JOB}/m-00000/\\d+-\\d+`,
      `mapred_tip_id=${JOB}/m-00000`,
      "mapred_task_partition=0",
      "mapred_task_is_map=true",
      "mapred_map_tasks=1",
      "mapred_reduce_tasks=0",
    ),
  },
  {
    rules: "E4",
    title: "options and the job's own variables; TMPDIR is the attempt's",
    input,
    scripts: {
      "m.py":
        "import os, sys, tempfile\nsys.stdin.read()\ne = os.environ\nprint(e['stream_num_map_output_key_fields'], e['OWN'], e['mapreduce_job_name'], os.path.isdir(e['TMPDIR']), tempfile.gettempdir() == e['TMPDIR'])\n",
    },
    request: {
      mapper: "m.py",
      r_num: 0,
      m_num: 1,
      env: { OWN: "a b=c", mapreduce_job_name: "mine", TMPDIR: "/nowhere" },
      conf: { "stream.num.map.output.key.fields": 2 },
    },
    parts: ["2 a b=c mine True True\n"],
  },
  {
    rules: "E5",
    title: "nothing of the worker's environment",
    input,
    scripts: {
      "m.py": `import os, re, sys
sys.stdin.read()
known = "PATH LANG HOME TMPDIR MR_RUN OWN LC_CTYPE"
print(sorted(n for n in os.environ if n not in known.split() and not re.match("map(reduce|red)?_|job_local_dir|stream_", n)))
print(os.environ["LANG"], os.environ.get("PYTHONUNBUFFERED"))
`,
    },
    request: { mapper: "m.py", r_num: 0, m_num: 1, env: { OWN: "x" } },
    parts: ["[]\nC.UTF-8 None\n"],
  },
  {
    rules: "E5",
    title: "PYTHONUNBUFFERED if the job sets it",
    input,
    scripts,
    request: { ...mapEnv("PYTHONUNBUFFERED"), env: { PYTHONUNBUFFERED: "1" } },
    parts: ["PYTHONUNBUFFERED=1\n"],
  },
];
