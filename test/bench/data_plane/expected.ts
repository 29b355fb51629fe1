import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { scratchFolder } from "../../support/processes.ts";
import type { Expected } from "./bench_case.ts";
import { quoted } from "./shell.ts";
import { runShell } from "./shell_run.ts";

/** What a result has to be, from files that make it up one after the other. */
export async function expectParts(order: Expected["order"], paths: string[]): Promise<Expected> {
  return { order, md5: await md5Of(`cat -- ${quoted(paths)}`) };
}

/** A result whose parts, one after the other, are what a command prints. */
export async function expectOutput(command: string): Promise<Expected> {
  return { order: "concatenated", md5: await md5Of(command) };
}

/** The md5 of the lines of some files, sorted. */
export function sortedMd5(paths: string[]): Promise<string> {
  return md5Of(`LC_ALL=C sort --parallel=2 -S 25% -- ${quoted(paths)}`);
}

/** @throws when the parts are not what they have to be. */
export async function checkParts(paths: string[], expected: Expected): Promise<void> {
  if (paths.length === 0) throw new Error("there is no result");
  // A merge of parts is sorted only if each of them is.
  const merge = expected.order === "sorted" ? "LC_ALL=C sort -m --" : "cat --";
  const md5 = await md5Of(`${merge} ${quoted(paths)}`);
  if (md5 !== expected.md5)
    throw new Error(`the result is wrong: md5 ${md5} (${expected.order}), not ${expected.md5}`);
}

async function md5Of(command: string): Promise<string> {
  await using folder = await scratchFolder("bench-md5");
  await runShell(`${command} | md5sum > digest`, folder.path);
  const digest = await readFile(join(folder.path, "digest"), "latin1");
  return digest.slice(0, digest.indexOf(" "));
}
