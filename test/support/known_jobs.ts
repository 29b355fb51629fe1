import assert from "node:assert/strict";
import type { Client, JobJson } from "../../cmd/mr/client.ts";
import { outputOf, putText } from "./cluster.ts";
import { seeded } from "./corpus.ts";

/**
 * Jobs whose answers are known. `count`: words, as a sequential run counts them.
 * `nonces`: the mapper draws a random number for every line and sends it to two
 * reducers; whatever was run twice, both must have got the same one. `copy`: map-only.
 * `sort`: all lines, by ranges of keys. `steps`: the words counted with a combiner, then
 * sorted, in two steps.
 */
export type JobKind = "count" | "nonces" | "copy" | "sort" | "steps";
export const JOB_KINDS: JobKind[] = ["count", "nonces", "copy", "sort", "steps"];

const SLEEP = `import os, sys, time
time.sleep(float(os.environ.get("SLEEP", "0")))
`;

const SCRIPTS: Record<string, string> = {
  "count-map.py": `${SLEEP}for line in sys.stdin:
    for word in line.split():
        print(word + "\\t1")
`,
  "count-reduce.py": `${SLEEP}last, total = None, 0
for line in sys.stdin:
    word, n = line.rstrip("\\n").split("\\t")
    if word != last:
        if last is not None: print(last + "\\t" + str(total))
        last, total = word, 0
    total += int(n)
if last is not None: print(last + "\\t" + str(total))
`,
  "nonces-map.py": `${SLEEP}for line in sys.stdin:
    number = line.split()[0]
    nonce = os.urandom(6).hex()
    print("a" + number + "\\t" + nonce)
    print("b" + number + "\\t" + nonce)
`,
  "nonces-reduce.py": `${SLEEP}for line in sys.stdin: sys.stdout.write(line)
`,
  "sort-map.py": `${SLEEP}for line in sys.stdin: sys.stdout.write(line)
`,
  "copy-map.py": `${SLEEP}for line in sys.stdin: sys.stdout.write(line.upper())
`,
};

export interface KnownJobOptions {
  maps?: number;
  reduces?: number;
  /** How long every task sleeps before it begins, in seconds. */
  sleep?: number;
}

export class KnownJobs {
  private readonly client: Client;
  private readonly lines: string[];

  private constructor(client: Client, lines: string[]) {
    this.client = client;
    this.lines = lines;
  }

  /** Uploads scripts and data. */
  static async prepare(client: Client, options: { seed: number; lines: number }) {
    const random = seeded(options.seed);
    const lines = Array.from({ length: options.lines }, (_, i) => {
      const words = Array.from({ length: 8 }, () => `w${Math.floor(1_000 ** random())}`);
      return `${i} ${words.join(" ")}`;
    });
    for (const [name, text] of Object.entries(SCRIPTS))
      await putText(client, "dfs-scripts", `known/${name}`, text);
    const half = Math.floor(lines.length / 2);
    await putText(client, "known", "a", `${lines.slice(0, half).join("\n")}\n`);
    await putText(client, "known", "b", `${lines.slice(half).join("\n")}\n`);
    return new KnownJobs(client, lines);
  }

  request(kind: JobKind, { maps = 6, reduces = 3, sleep = 0 }: KnownJobOptions = {}): object {
    const common = { name: kind, data: "known", env: { SLEEP: String(sleep) } };
    const step = (of: string) => ({
      mapper: `known/${of}-map.py`,
      reducer: `known/${of}-reduce.py`,
      m_num: maps,
      r_num: reduces,
    });
    const sort = { ...step("sort"), reducer: "identity", partitioner: "range" };
    if (kind === "steps")
      return { ...common, steps: [{ ...step("count"), combiner: "sum" }, sort] };
    if (kind === "sort") return { ...common, ...sort };
    if (kind !== "copy") return { ...common, ...step(kind) };
    return { ...common, mapper: "known/copy-map.py", m_num: maps, r_num: 0 };
  }

  /** Holds the result of a job that has ended against the answer. */
  async check(job: JobJson): Promise<void> {
    assert.equal(job.state, "succeeded", `${job.id}: ${JSON.stringify(job.error)}`);
    const output = (await outputOf(this.client, job.id)).toString();
    const expected = { copy: this.copied, sort: this.sortedLines, steps: this.counted }[
      job.name as string
    ];
    if (job.name === "count")
      assert.equal(sorted(output), sorted(this.counted()), `${job.id}: wrong output`);
    else if (expected !== undefined)
      assert.equal(output, expected.call(this), `${job.id}: wrong output`);
    else this.checkNonces(job.id, output);
  }

  private sortedLines(): string {
    return this.lines
      .toSorted(byBytes)
      .map((line) => `${line}\t\n`)
      .join("");
  }

  private copied(): string {
    return this.lines.map((line) => `${line.toUpperCase()}\n`).join("");
  }

  private counted(): string {
    const counts = new Map<string, number>();
    for (const word of this.lines.flatMap((line) => line.split(" ")))
      counts.set(word, (counts.get(word) ?? 0) + 1);
    const words = [...counts].toSorted(([a], [b]) => byBytes(a, b));
    return words.map(([word, count]) => `${word}\t${count}\n`).join("");
  }

  private checkNonces(id: string, output: string): void {
    const found = new Map<string, string>();
    for (const line of output.trimEnd().split("\n")) {
      const [key = "", nonce = ""] = line.split("\t");
      assert.ok(!found.has(key), `${id}: ${key} came twice`);
      found.set(key, nonce);
    }
    assert.equal(found.size, 2 * this.lines.length, `${id}: lines are missing or too many`);
    for (const number of this.lines.keys())
      assert.equal(found.get(`a${number}`), found.get(`b${number}`), `${id}: two runs were mixed`);
  }
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function sorted(text: string): string {
  return text.split("\n").toSorted().join("\n");
}
