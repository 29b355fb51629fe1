import { createHash } from "node:crypto";
import { join } from "node:path";
import { programOf, splitCommand } from "../model/command.ts";
import type { Contract, PairFormat } from "../model/contract.ts";
import { MrError } from "../model/errors.ts";
import { baseName, fileOf, isBlob } from "../model/request_fields.ts";
import type { Assignment, InputRange } from "../model/task.ts";
import { findProgram, resolveCommand, resolveProgram, SCRIPT_PATH } from "../streaming/command.ts";
import { scriptEnvironment } from "../streaming/environment.ts";
import { type ModuleRole, moduleRoles } from "../streaming/module_exports.ts";
import { ModuleThread } from "../streaming/module_thread.ts";
import type { Script } from "../streaming/script.ts";
import { type ScriptLimits, ScriptProcess } from "../streaming/script_process.ts";
import type { StderrLog } from "../streaming/stderr.ts";
import { buildVirtualEnv } from "../streaming/virtual_env.ts";
import type { AttemptFolder, Scratch } from "./attempt_files.ts";

/** What a script is run as: a combiner runs beside the mapper, for other bytes. */
export type ScriptRole = "map" | "combine" | "reduce";

/** What the operator says of user code. */
export interface CodeSettings {
  /** Modules may run in threads of the worker, where a thread is no wall. */
  modules: boolean;
  /** Where pip finds packages; undefined: where it does by itself. Scripts can read it. */
  pipIndexUrl: string | undefined;
}

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
  private readonly contract: Contract;
  private readonly settings: CodeSettings;
  private readonly folder: AttemptFolder;
  private readonly scratch: Scratch;

  /** The folder of the Python environment that scripts run in. */
  private virtualEnv: string | undefined;
  private laidOut = false;

  constructor(
    assignment: Assignment,
    contract: Contract,
    settings: CodeSettings,
    folder: AttemptFolder,
    scratch: Scratch,
  ) {
    this.assignment = assignment;
    this.contract = contract;
    this.settings = settings;
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
    for (const name of names.filter((candidate) => Object.hasOwn(scripts, candidate))) {
      const bytes = await this.scratch.read(name, scripts[name], signal);
      if (Buffer.from(bytes.subarray(0, SCANNED_BYTES)).includes("map_input_")) return true;
    }
    return false;
  }

  async start(options: StartOptions): Promise<Script> {
    const { folder, assignment } = this;
    const { role, signal } = options;
    // A built-in mapper has started nothing before its combiner.
    if (role !== "combine" || !this.laidOut) await this.layOut(signal, options.log);
    const command = role === "combine" ? assignment.job.combiner : assignment.job.command;
    const temp = role === "combine" ? folder.combinerTemp : folder.temp;
    const env = this.environment(options.range, temp);
    const exported = await this.exportedBy(command, role, signal);
    signal.throwIfAborted();
    if (exported !== undefined && !this.settings.modules)
      throw new MrError(
        "user",
        `${programOf(command)} exports ${exported}, and this worker runs no modules (MR_MODULES is off)`,
      );
    if (exported !== undefined) return this.startModule(command, exported, env, options);
    const argv = await this.argvOf(command);
    signal.throwIfAborted();
    return new ScriptProcess({
      argv,
      cwd: folder.work,
      env,
      signal,
      silenceMs: options.silenceMs,
      limits: options.limits,
      mark: `TMPDIR=${temp}`,
      log: options.log,
      onOutput: options.onOutput,
    });
  }

  /** How the mapper or reducer was started last, for doing the same by hand; a module is not. */
  async commandLine(range: InputRange | undefined, signal: AbortSignal) {
    const { command } = this.assignment.job;
    const role = this.assignment.input.kind;
    if ((await this.exportedBy(command, role, signal)) !== undefined) return undefined;
    return { argv: await this.argvOf(command), env: this.environment(range, this.folder.temp) };
  }

  private environment(range: InputRange | undefined, temp: string): Record<string, string> {
    const env = scriptEnvironment(this.assignment, range, { work: this.folder.work, temp });
    return this.virtualEnv === undefined ? env : insideVirtualEnv(env, this.virtualEnv);
  }

  /** The function of a shipped module that plays this role; undefined: it is an ordinary script. */
  private async exportedBy(
    command: string,
    role: ScriptRole,
    signal: AbortSignal,
  ): Promise<ModuleRole | undefined> {
    const name = programOf(command);
    const { scripts } = this.assignment.job;
    if (!Object.hasOwn(scripts, name) || !MODULE.test(name)) return undefined;
    const text = Buffer.from(await this.scratch.read(name, scripts[name], signal)).toString();
    const roles = moduleRoles(name, text);
    if (roles.has(role)) return role;
    // What can reduce can combine.
    return role === "combine" && roles.has("reduce") ? "reduce" : undefined;
  }

  private startModule(
    command: string,
    role: ModuleRole,
    env: Record<string, string>,
    { signal, silenceMs, limits, log, onOutput, role: part }: StartOptions,
  ): Script {
    const { mapOutput, reduceInput, reduceOutput } = this.contract;
    const output = part === "map" ? mapOutput.separator : reduceOutput.separator;
    return new ModuleThread({
      path: join(this.folder.work, baseName(programOf(command))),
      role,
      cwd: this.folder.work,
      env,
      signal,
      silenceMs,
      memoryBytes: limits.memoryBytes,
      outputBytes: limits.outputBytes,
      separators: {
        input: Buffer.from(reduceInput.separator),
        keyFields: keyFieldsRead(mapOutput, reduceInput.separator),
        output: Buffer.from(output),
      },
      log,
      onOutput,
    });
  }

  /** A fresh working directory: what an earlier run left behind is not there for the next. */
  private async layOut(signal: AbortSignal, log: StderrLog): Promise<void> {
    const { folder, scratch } = this;
    const { command, combiner, files, scripts } = this.assignment.job;
    // The attempt's folder is new at first.
    if (this.laidOut) scratch.renewScript(folder);
    this.laidOut = true;
    for (const file of files) {
      const { name, link } = fileOf(file);
      await scratch.place(name, scripts[name], link, folder, signal);
    }
    for (const name of [command, combiner].map(programOf))
      if (Object.hasOwn(scripts, name))
        await scratch.place(name, scripts[name], baseName(name), folder, signal);
    if (files.some((file) => fileOf(file).link === REQUIREMENTS))
      this.virtualEnv = await this.virtualEnvOf(signal, log);
  }

  /** The environment that the shipped requirements.txt asks for; made once per worker and content. */
  private async virtualEnvOf(signal: AbortSignal, log: StderrLog): Promise<string> {
    const { files, scripts } = this.assignment.job;
    const { work, temp } = this.folder;
    const python = await resolveProgram("python3");
    const key = createHash("sha256").update(python);
    // What is shipped beside it may be installed by it.
    for (const { name, link } of files.map(fileOf)) {
      const content = createHash("sha256").update(
        await this.scratch.read(name, scripts[name], signal),
      );
      key.update(`\n${link} ${content.digest("hex")}`);
    }
    const env = {
      PATH: SCRIPT_PATH,
      LANG: "C.UTF-8",
      HOME: temp,
      TMPDIR: temp,
      ...(this.settings.pipIndexUrl !== undefined && { PIP_INDEX_URL: this.settings.pipIndexUrl }),
    };
    const build = (into: string) =>
      buildVirtualEnv({
        requirements: join(work, REQUIREMENTS),
        cwd: work,
        into,
        python,
        env,
        signal,
        timeoutMs: VIRTUAL_ENV_MS,
        onOutput: (line) => log.note(line),
      });
    return this.scratch.virtualEnvs.get(key.digest("hex"), build, signal);
  }

  private async argvOf(command: string): Promise<string[]> {
    const [program = "", ...args] = splitCommand(command);
    const isShipped = isBlob(program) && Object.hasOwn(this.assignment.job.scripts, program);
    if (isShipped)
      return resolveCommand(join(this.folder.work, baseName(program)), args, this.pythonHere());
    return [await this.programOfWorker(program), ...args];
  }

  private pythonHere(): string | undefined {
    return this.virtualEnv && join(this.virtualEnv, "bin", "python");
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

const MODULE = /\.[mc]?[jt]s$/;
const REQUIREMENTS = "requirements.txt";
/** To make an environment may take this long, in milliseconds. */
const VIRTUAL_ENV_MS = 900_000;

/** As `activate` would have it. */
function insideVirtualEnv(env: Record<string, string>, folder: string): Record<string, string> {
  return { ...env, VIRTUAL_ENV: folder, PATH: `${join(folder, "bin")}:${env.PATH ?? SCRIPT_PATH}` };
}

/** A key's own separators stand in what a reducer reads only where they are the same ones. */
function keyFieldsRead(mapOutput: PairFormat, separator: string): number {
  return mapOutput.separator === separator ? mapOutput.keyFields : 1;
}

/** A script that asks for its input file says so near its beginning. */
const SCANNED_BYTES = 1024 * 1024;
