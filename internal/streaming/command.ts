import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, realpath, stat } from "node:fs/promises";
import { basename, delimiter, dirname, isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import { MrError } from "../model/errors.ts";

/*
 * A worker holds what is secret, so it executes nothing that a request, a script or a file names: such a
 * program is looked up and started where the script runs. What it does look for is a bare word, in the
 * operator's own folders; and of these it asks one alone for more, `python3`.
 */

/** Where a script's own programs are looked for: not the worker's PATH, which is the operator's. */
export const SCRIPT_PATH = "/usr/local/bin:/usr/bin:/bin";

/** How something is started in its working directory. */
export interface Command {
  /** The first is a path, as it is seen there. */
  argv: string[];
  /** What is to be said where that leads nowhere. */
  absent?: () => MrError;
}

/**
 * The command for a script in its working directory: by its `#!` line, by its extension, or as it is.
 * @param script its path there.
 * @param beginning of what is in it; its first line at least.
 * @param python instead of the one that is found.
 * @throws MrError `user` when there is nothing that could run it.
 */
export async function resolveCommand(
  script: string,
  beginning: Uint8Array,
  args: string[],
  python?: string,
): Promise<Command> {
  const { program, options } = interpreterOf(script, beginning);
  if (program === undefined) return { argv: [script, ...args], absent: () => absent(script) };
  const path =
    python !== undefined && isSystemsPython(program) ? python : await pathOf(program, absent);
  return { argv: [path, ...options, script, ...args], absent: () => absent(program) };
}

/** @throws MrError `not_found` when it is a bare word and no program of this machine. */
export async function programCommand(program: string, args: string[]): Promise<Command> {
  const path = await pathOf(program, noProgram);
  return { argv: [path, ...args], absent: () => noProgram(program) };
}

interface Interpreter {
  /** A path, or a bare word; undefined: the script itself is executed. */
  program: string | undefined;
  options: string[];
}

function interpreterOf(script: string, beginning: Uint8Array): Interpreter {
  const first = firstLine(beginning);
  if (first.startsWith("#!")) return namedIn(script, first.slice(2).trim());
  const extension = script.slice(script.lastIndexOf(".") + 1);
  if (extension === "py") return { program: "python3", options: [] };
  const isNodes = ["js", "mjs", "cjs", "ts", "mts"].includes(extension);
  return { program: isNodes ? process.execPath : undefined, options: [] };
}

/** @param line what stands behind `#!`. */
function namedIn(script: string, line: string): Interpreter {
  const [named = "", ...options] = line.split(/\s+/);
  if (named === "")
    throw new MrError("user", `the first line of ${basename(script)} names no interpreter`);
  if (!/^(\/usr)?\/bin\/env$/.test(named)) return { program: named, options };
  const [program = "", ...rest] = options[0] === "-S" ? options.slice(1) : options;
  // Options of its own, and variables, are env's business: it gets them in one piece, as from a kernel.
  const isPlain = program !== "" && !program.startsWith("-") && !program.includes("=");
  if (isPlain) return { program, options: rest };
  return { program: named, options: [line.slice(named.length).trim()] };
}

/** Of a script, what is looked at to find out what runs it. */
export const FIRST_LINE_BYTES = 256;

function firstLine(bytes: Uint8Array): string {
  const beginning = Buffer.from(bytes.subarray(0, FIRST_LINE_BYTES)).toString();
  return beginning.split(/\r?\n/, 1)[0] ?? "";
}

/** Whether it is python3 by its bare name, or by a path into a folder of programs: nobody's own one. */
function isSystemsPython(program: string): boolean {
  const isOurs = !program.includes("/") || searchPath().includes(dirname(program));
  return isOurs && isPython(basename(program));
}

function isPython(name: string): boolean {
  return name === "python" || name === "python3";
}

/** A path is taken as it is: what it leads to is for whoever starts it. */
async function pathOf(program: string, absent: (program: string) => MrError): Promise<string> {
  if (program.includes("/")) return program;
  const found = isPython(program) ? await operatorsPython() : await findProgram(program);
  if (found === undefined) throw absent(program);
  return found;
}

let python: Promise<string | undefined> | undefined;

/**
 * The executable of the `python3` on this process's own search path, found once in its life; undefined:
 * there is none. It may be a shim that costs 100 ms each time: it is asked once what it starts.
 */
export async function operatorsPython(): Promise<string | undefined> {
  python ??= askPython();
  try {
    return await python;
  } catch (error) {
    python = undefined;
    throw error;
  }
}

async function askPython(): Promise<string | undefined> {
  const path = await findProgram("python3");
  if (path === undefined) return undefined;
  const { stdout } = await promisify(execFile)(
    path,
    ["-I", "-c", "import sys; print(sys.executable)"],
    { env: { PATH: searchPath().join(delimiter), LANG: "C.UTF-8" } },
  );
  return stdout.trim() || path;
}

/** @param name a bare word. @returns undefined when it is on no search path. */
async function findProgram(name: string): Promise<string | undefined> {
  for (const folder of searchPath()) {
    const place = join(folder, name);
    if (await isExecutable(place)) return place;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/** The operator's folders of programs. What is not absolute would be looked for wherever we happen to be. */
function searchPath(): string[] {
  return `${process.env.PATH ?? ""}${delimiter}${SCRIPT_PATH}`.split(delimiter).filter(isAbsolute);
}

/**
 * @param folders in which users' files lie.
 * @returns a folder of the search path that is in one of them; undefined: as it should be, there is none.
 */
export async function searchedAmong(folders: string[]): Promise<string | undefined> {
  const theirs = await Promise.all(folders.map(realPath));
  for (const folder of searchPath()) {
    const real = await realPath(folder);
    if (theirs.some((their) => `${real}/`.startsWith(`${their}/`))) return folder;
  }
  return undefined;
}

async function realPath(path: string): Promise<string> {
  return realpath(path).catch(() => path);
}

function absent(program: string): MrError {
  return new MrError("user", `the script's interpreter ${program} is not on this worker`);
}

function noProgram(program: string): MrError {
  const what = "neither a script of dfs-scripts nor a program of this worker";
  return new MrError("not_found", `there is no ${program}: ${what}`);
}
