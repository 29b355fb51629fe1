import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { MrError } from "../model/errors.ts";

/** Where a script's own programs are looked for: not the worker's PATH, which is the operator's. */
export const SCRIPT_PATH = "/usr/local/bin:/usr/bin:/bin";

/**
 * The argument vector for a script in its working directory: by its `#!` line,
 * by its extension, or as it is.
 * @param script its path there.
 * @param bytes what is in it.
 * @param python instead of the one that is found.
 * @throws MrError `user` when there is nothing that could run it.
 */
export async function resolveCommand(
  script: string,
  bytes: Uint8Array,
  args: string[],
  python?: string,
): Promise<string[]> {
  const interpreter = (program: string) =>
    python !== undefined && isPython(program) ? python : resolveProgram(program);
  const first = firstLine(bytes);
  const extension = script.slice(script.lastIndexOf(".") + 1);
  if (first.startsWith("#!")) {
    const words = first.slice(2).trim().split(/\s+/);
    const named = words[0]?.endsWith("/env") ? words.slice(words[1] === "-S" ? 2 : 1) : words;
    const [program = "", ...options] = named;
    return [await interpreter(program), ...options, script, ...args];
  }
  if (extension === "py") return [await interpreter("python3"), script, ...args];
  if (["js", "mjs", "cjs", "ts", "mts"].includes(extension))
    return [process.execPath, script, ...args];
  return [script, ...args];
}

function firstLine(bytes: Uint8Array): string {
  const beginning = Buffer.from(bytes.subarray(0, 256)).toString("latin1");
  return beginning.split(/\r?\n/, 1)[0] ?? "";
}

const programs = new Map<string, Promise<string>>();

/** The executable of an interpreter, found once in the life of this process. */
export function resolveProgram(program: string): Promise<string> {
  let found = programs.get(program);
  if (found === undefined) {
    found = isPython(program) ? resolvePython(program) : findProgram(program);
    programs.set(program, found);
    found.catch(() => programs.delete(program));
  }
  return found;
}

function isPython(program: string): boolean {
  return /^python3?$/.test(program.slice(program.lastIndexOf("/") + 1));
}

/** `python3` may be a shim that costs 100 ms each time: ask it once what it starts. */
async function resolvePython(program: string): Promise<string> {
  const path = await findProgram(program.includes("/") ? program : "python3");
  const { stdout } = await promisify(execFile)(
    path,
    ["-I", "-c", "import sys; print(sys.executable)"],
    { env: { PATH: searchPath(), LANG: "C.UTF-8" } },
  );
  return stdout.trim() === "" ? path : stdout.trim();
}

/** @throws MrError `user` when it is not on this machine. */
export async function findProgram(program: string): Promise<string> {
  const places = program.includes("/")
    ? [program]
    : searchPath()
        .split(delimiter)
        .map((folder) => join(folder, program));
  for (const place of places) {
    const usable = await access(place, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return place;
  }
  throw new MrError("user", `the script's interpreter ${program} is not on this worker`);
}

function searchPath(): string {
  return `${process.env.PATH ?? ""}${delimiter}${SCRIPT_PATH}`;
}
