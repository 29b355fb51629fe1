import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { putText, type TestCluster, useCluster } from "../support/cluster.ts";
import { scratchFolder } from "../support/processes.ts";

const run = promisify(execFile);
const MR = join(import.meta.dirname, "..", "..", "cmd", "mr", "main.ts");

/** Runs a command on a terminal of its own, and passes on what it shows. */
const ON_A_TERMINAL = [
  "import os, pty, sys",
  "code = pty.spawn(sys.argv[1:], lambda file: os.read(file, 65536), lambda file: b'')",
  "sys.exit(os.waitstatus_to_exitcode(code))",
].join("\n");

/** Clears the screen, sets the title, asks for an answer, C1's own CSI, turns the text around. */
const EVIL = "\u001b[2J\u001b]0;title\u0007\u001b[6n\u009b31m\u202egnp.exe\u2066\u200f\b\u007f";
/** A job whose name turns the text around. */
const NAMED = ["--name", "\u202egnp\u2066", "--mapper", "good.sh"];
/** Our own, which draw progress. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const DRAWN = /\u001b\[(?:2K|\d+A)/g;

describe("what users have made", () => {
  let cluster: TestCluster;
  let succeeded: string;
  let failed: string;
  const shown = (...args: string[]) =>
    shownHere(process.execPath, MR, ...args, "--server", cluster.url);
  /** Shows what a command line makes, run as it is. */
  const shownHere = async (...argv: string[]) => {
    const { stdout } = await run("python3", ["-c", ON_A_TERMINAL, ...argv], {
      timeout: 60_000,
    }).catch((error) => error);
    return String(stdout);
  };
  const assertHarmless = (text: string, what: string) => {
    const rest = text.replaceAll(DRAWN, "").replaceAll(/\r?\n|\r/g, "\n");
    const left = /(?![\t\n])[\p{Cc}\p{Bidi_Control}]/u.exec(rest);
    assert.equal(left, null, `${what}: ${JSON.stringify(rest)}`);
  };
  const json = (body: object) => JSON.stringify(body);

  before(async () => {
    cluster = await useCluster({ workers: 1 });
    await putText(cluster.client, "box", "a", `${EVIL}\tvalue\n`);
    const said = `printf 'reporter:counter:g${EVIL},n,1\\nreporter:status:${EVIL}\\nlog ${EVIL}\\n' >&2`;
    await putText(cluster.client, "dfs-scripts", "good.sh", `#!/bin/sh\n${said}\ncat\n`);
    await putText(cluster.client, "dfs-scripts", "bad.sh", `#!/bin/sh\n${said}\nexit 3\n`);
    const request = { data: "box", r_num: 0, max_attempts: 1 };
    for await (const { id } of cluster.client.run(
      { ...request, mapper: "good.sh" },
      AbortSignal.timeout(30_000),
    ))
      succeeded = id;
    for await (const { id } of cluster.client.run(
      { ...request, mapper: "bad.sh", name: `\u202egnp\u2066` },
      AbortSignal.timeout(30_000),
    ))
      failed = id;
  });
  after(() => cluster[Symbol.asyncDispose]());

  it("reaches a terminal through one filter, whatever shows it", async () => {
    const commands: [args: string[], expected: RegExp][] = [
      [["jobs"], /gnp/],
      [["status", succeeded, "--tasks"], /title/],
      [["status", failed, "--tasks"], /exited with 3/],
      [["status", failed, "--json"], /\\u001b/],
      [["watch", succeeded], /gnp\.exe/],
      [["watch", failed], /log .*title/],
      [["logs", succeeded], /title/],
      [["logs", failed], /title/],
      [["cat", succeeded], /gnp\.exe/],
      [["cat", "box/a"], /gnp\.exe/],
      [["run", "--mapper", "bad.sh", "--data", "box", "--reduces", "0"], /exited with 3/],
      [["run", "--detach", "--json", ...NAMED, "--data", "box", "--reduces", "0"], /gnp/],
      [["cat", `box/${EVIL.slice(0, 4)}`], /box/],
      [["status", `${EVIL}`], /title/],
      [[`x${EVIL}`], /no such command/],
    ];
    for (const [args, expected] of commands) {
      const text = await shown(...args);
      assert.match(text, expected, args.join(" "));
      assertHarmless(text, args.join(" "));
    }
  });

  it("reaches it so from a job that ran here, whole and in part", async () => {
    await using folder = await scratchFolder("terminal");
    const input = join(folder.path, "a");
    await writeFile(input, `${EVIL}\tvalue\n`);
    for (const more of [[], ["--show", "1"]]) {
      const args = ["run", "--local", "--mapper", "cat", "--reduces", "0", ...more, input];
      const text = await shownHere(process.execPath, MR, ...args);
      assert.match(text, /gnp\.exe/, args.join(" "));
      assertHarmless(text, args.join(" "));
    }
  });

  it("is nothing that a terminal obeys in any JSON of the proxy", async () => {
    const name = "\u202egnp\u009b31m";
    await writeFile(join(cluster.dir, "store", "box", name), "");
    const paths = [
      `/jobs/${failed}`,
      "/jobs",
      `/jobs/${failed}/tasks`,
      `/jobs/${failed}/events`,
      `/jobs/${succeeded}`,
      "/storage/box",
      `/storage/box/${encodeURIComponent(`${name}?`)}`,
      `/nowhere/${encodeURIComponent(name)}`,
    ];
    const seen: string[] = [];
    for (const path of paths) {
      const text = await (await fetch(`${cluster.url}${path}`)).text();
      assertHarmless(text, path);
      seen.push(text);
    }
    const refused = { method: "POST", body: json({ data: "box", mapper: `gone${name}` }) };
    const problem = await (await fetch(`${cluster.url}/request`, refused)).text();
    assertHarmless(problem, "POST /request");
    const { objects } = JSON.parse(seen[5] ?? "") as { objects: { name: string }[] };
    assert.ok(objects.some((each) => each.name === name));
    assert.match(seen[0] ?? "", /title.*\\u009b/);
  });

  it("goes into a pipe as it is", async () => {
    const { stdout } = await run(process.execPath, [MR, "cat", succeeded, "--server", cluster.url]);
    assert.equal(stdout, `${EVIL}\tvalue\n`);
    const status = [MR, "status", failed, "--json", "--server", cluster.url];
    const job = JSON.parse((await run(process.execPath, status)).stdout) as { name: string };
    assert.equal(json({ name: job.name }), json({ name: "\u202egnp\u2066" }));
  });
});
