import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { putText, type TestCluster, useCluster } from "../support/cluster.ts";

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
/** Our own, which draw progress. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const DRAWN = /\u001b\[(?:2K|\d+A)/g;

describe("what users have made", () => {
  let cluster: TestCluster;
  let succeeded: string;
  let failed: string;
  const shown = async (...args: string[]) => {
    const argv = ["-c", ON_A_TERMINAL, process.execPath, MR, ...args, "--server", cluster.url];
    const { stdout } = await run("python3", argv, { timeout: 60_000 }).catch((error) => error);
    return String(stdout);
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
      [["cat", `box/${EVIL.slice(0, 4)}`], /box/],
      [["status", `${EVIL}`], /title/],
      [[`x${EVIL}`], /no such command/],
    ];
    for (const [args, expected] of commands) {
      const text = await shown(...args);
      assert.match(text, expected, args.join(" "));
      const rest = text.replaceAll(DRAWN, "").replaceAll(/\r?\n|\r/g, "\n");
      const left = /(?![\t\n])[\p{Cc}\p{Bidi_Control}]/u.exec(rest);
      assert.equal(left, null, `${args.join(" ")}: ${JSON.stringify(rest)}`);
    }
  });

  it("goes into a pipe as it is", async () => {
    const { stdout } = await run(process.execPath, [MR, "cat", succeeded, "--server", cluster.url]);
    assert.equal(stdout, `${EVIL}\tvalue\n`);
    const status = [MR, "status", failed, "--json", "--server", cluster.url];
    const job = JSON.parse((await run(process.execPath, status)).stdout) as { name: string };
    assert.equal(json({ name: job.name }), json({ name: "\u202egnp\u2066" }));
  });
});
