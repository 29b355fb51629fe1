import { join } from "node:path";
import { builtinReducer, isIdentity, programOf } from "../model/builtins.ts";
import { MrError } from "../model/errors.ts";
import { baseName, fileOf, isBlob } from "../model/job_request.ts";
import type { Assignment, InputRange } from "../model/task.ts";
import { findProgram, resolveCommand, splitCommand } from "../streaming/command.ts";
import { scriptEnvironment } from "../streaming/environment.ts";
import type { Script } from "../streaming/script.ts";
import { type ScriptLimits, ScriptProcess } from "../streaming/script_process.ts";
import type { StderrLog } from "../streaming/stderr.ts";
import type { AttemptFolder, Scratch } from "./attempt_files.ts";

/** What a script is run as: a combiner runs beside the mapper, for other bytes. */
export type ScriptRole = "map" | "combine" | "reduce";

export interface StartOptions {
  role: ScriptRole;
  /** What the script's environment names as its input; none in a reducer. */
  range: InputRange | undefined;
  log: StderrLog;
  signal: AbortSignal;
  silenceMs: number;
  limits: ScriptLimits;
  onOutput: (chunk: Buffer) => Promise<void>;
}

/** The user's code of one attempt: laid out in its working directory, and started there. */
export class AttemptScripts {
  private readonly assignment: Assignment;
  private readonly folder: AttemptFolder;
  private readonly scratch: Scratch;

  constructor(assignment: Assignment, folder: AttemptFolder, scratch: Scratch) {
    this.assignment = assignment;
    this.folder = folder;
    this.scratch = scratch;
  }

  /**
   * Whether the mapper asks which file it reads. Then it is started once for each, as on
   * Hadoop; one that does not ask is started once for all the files of its task.
   */
  async asksForInputFile(signal: AbortSignal): Promise<boolean> {
    const { command, files, scripts } = this.assignment.job;
    const names = [programOf(command), ...files.map((file) => fileOf(file).name)];
    for (const name of names.filter((candidate) => scripts[candidate] !== undefined)) {
      const bytes = await this.scratch.read(name, scripts[name], signal);
      if (Buffer.from(bytes.subarray(0, SCANNED_BYTES)).includes("map_input_")) return true;
    }
    return false;
  }

  async start(options: StartOptions): Promise<Script> {
    const { folder, assignment } = this;
    const { role, signal } = options;
    if (role !== "combine") await this.layOut(signal);
    const command = role === "combine" ? assignment.job.combiner : assignment.job.command;
    const argv = await this.argvOf(command);
    const temp = role === "combine" ? folder.combinerTemp : folder.temp;
    signal.throwIfAborted();
    return new ScriptProcess({
      argv,
      cwd: folder.work,
      env: scriptEnvironment(assignment, options.range, { work: folder.work, temp }),
      signal,
      silenceMs: options.silenceMs,
      limits: options.limits,
      mark: `TMPDIR=${temp}`,
      log: options.log,
      onOutput: options.onOutput,
    });
  }

  /** A fresh working directory: what an earlier run left behind is not there for the next. */
  private async layOut(signal: AbortSignal): Promise<void> {
    const { folder, scratch } = this;
    const { command, combiner, files, scripts } = this.assignment.job;
    await scratch.renewScript(folder);
    for (const file of files) {
      const { name, link } = fileOf(file);
      await scratch.place(name, scripts[name], link, folder, signal);
    }
    for (const name of [command, combiner].map(programOf))
      if (scripts[name] !== undefined)
        await scratch.place(name, scripts[name], baseName(name), folder, signal);
  }

  private async argvOf(command: string): Promise<string[]> {
    const [program = "", ...args] = splitCommand(command);
    const isShipped = isBlob(program) && this.assignment.job.scripts[program] !== undefined;
    if (isShipped) return resolveCommand(join(this.folder.work, baseName(program)), args);
    return [await this.programOfWorker(program), ...args];
  }

  private async programOfWorker(program: string): Promise<string> {
    try {
      return await findProgram(program);
    } catch (cause) {
      throw new MrError(
        "not_found",
        `there is no ${program}: neither a script of dfs-scripts nor a program of this worker`,
        { cause },
      );
    }
  }
}

/** A script that asks for its input file says so near its beginning. */
const SCANNED_BYTES = 1024 * 1024;

/** Whether a command runs without a script. */
export function isBuiltin(command: string): boolean {
  return isIdentity(command) || builtinReducer(command) !== undefined;
}
