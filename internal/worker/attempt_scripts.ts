import { createHash } from "node:crypto";
import { join } from "node:path";
import { programOf, splitCommand } from "../model/command.ts";
import type { Contract, PairFormat } from "../model/contract.ts";
import { baseName, fileOf, isBlob } from "../model/request_fields.ts";
import type { Assignment, InputRange } from "../model/task.ts";
import {
  type Command,
  FIRST_LINE_BYTES,
  operatorsPython,
  programCommand,
  resolveCommand,
  SCRIPT_PATH,
} from "../streaming/command.ts";
import { scriptEnvironment } from "../streaming/environment.ts";
import { MODULE_READS, moduleCommand } from "../streaming/module_command.ts";
import type { ModuleRole } from "../streaming/module_exports.ts";
import type { RunnerAddress } from "../streaming/runner_connection.ts";
import type { Script } from "../streaming/script.ts";
import {
  type ScriptLayout,
  type ScriptLimits,
  type ScriptPlace,
  ScriptProcess,
} from "../streaming/script_process.ts";
import type { StderrLog } from "../streaming/stderr.ts";
import { type VirtualEnv, virtualEnv } from "../streaming/virtual_env.ts";
import type { AttemptFolder, Scratch } from "./attempt_files.ts";

/** What a script is run as: a combiner runs beside the mapper, for other bytes. */
export type ScriptRole = "map" | "combine" | "reduce";

/** What the operator says of user code. */
export interface CodeSettings {
  /** What starts it. */
  runner: RunnerAddress;
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
export class AttemptScripts implements Disposable {
  private readonly assignment: Assignment;
  private readonly contract: Contract;
  private readonly settings: CodeSettings;
  private readonly folder: AttemptFolder;
  private readonly scratch: Scratch;

  /** The Python environment that scripts run in. */
  private virtualEnv: VirtualEnv | undefined;
  /** What the runner has not yet taken. */
  private layout: ScriptLayout | undefined;
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
      const { cache } = this.scratch;
      const { bytes } = await cache.beginning(name, scripts[name], SCANNED_BYTES, signal);
      if (bytes.includes("map_input_")) return true;
    }
    return false;
  }

  async start(options: StartOptions): Promise<Script> {
    const { folder, assignment } = this;
    const { role, signal } = options;
    // A built-in mapper has started nothing before its combiner.
    if (role !== "combine" || !this.laidOut) await this.layOut(options);
    const command = role === "combine" ? assignment.job.combiner : assignment.job.command;
    const temp = role === "combine" ? folder.combinerTemp : folder.temp;
    const env = this.environment(options.range, temp);
    const exported = await this.exportedBy(command, role, signal);
    const run: Command =
      exported === undefined
        ? await this.commandOf(command, signal)
        : { argv: this.argvOfModule(command, exported, options) };
    signal.throwIfAborted();
    return new ScriptProcess({
      runner: this.settings.runner,
      place: this.place(exported === undefined ? [] : MODULE_READS),
      ...run,
      env,
      signal,
      silenceMs: options.silenceMs,
      limits: options.limits,
      log: options.log,
      onOutput: options.onOutput,
    });
  }

  /** Nothing will be started any more. */
  [Symbol.dispose](): void {
    this.virtualEnv?.[Symbol.dispose]();
  }

  /** Whether a folder was made for a script. */
  get hadScript(): boolean {
    return this.laidOut;
  }

  /** How the mapper or reducer was started last, for doing the same by hand; a module is not. */
  async commandLine(range: InputRange | undefined, signal: AbortSignal) {
    const { command } = this.assignment.job;
    const role = this.assignment.input.kind;
    if ((await this.exportedBy(command, role, signal)) !== undefined) return undefined;
    const { argv } = await this.commandOf(command, signal);
    return { argv, env: this.environment(range, this.folder.temp) };
  }

  private environment(range: InputRange | undefined, temp: string): Record<string, string> {
    const env = scriptEnvironment(this.assignment, range, { work: this.folder.work, temp });
    return this.virtualEnv === undefined ? env : insideVirtualEnv(env, this.virtualEnv.folder);
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
    const roles = await this.scratch.rolesOf(name, scripts[name], signal);
    if (roles.has(role)) return role;
    // What can reduce can combine.
    return role === "combine" && roles.has("reduce") ? "reduce" : undefined;
  }

  private argvOfModule(
    command: string,
    exported: ModuleRole,
    { role, limits }: StartOptions,
  ): string[] {
    const { mapOutput, reduceInput, reduceOutput } = this.contract;
    const output = role === "map" ? mapOutput.separator : reduceOutput.separator;
    const separators = {
      input: Buffer.from(reduceInput.separator),
      keyFields: keyFieldsRead(mapOutput, reduceInput.separator),
      output: Buffer.from(output),
    };
    const path = join(this.folder.work, baseName(programOf(command)));
    return moduleCommand(path, exported, separators, limits.memoryBytes);
  }

  /** A fresh working directory: what an earlier run left behind is not there for the next. */
  private async layOut(options: StartOptions): Promise<void> {
    const { folder, scratch } = this;
    const { signal } = options;
    const { files, scripts, combiner } = this.assignment.job;
    this.layout = scratch.renewLayout(folder, combiner !== "");
    this.laidOut = true;
    const shipment = scratch.shipment(folder, signal);
    for (const { name, link } of this.shipped()) await shipment.add(name, scripts[name], link);
    if (files.some((file) => fileOf(file).link === REQUIREMENTS))
      this.virtualEnv ??= await this.virtualEnvOf(options);
  }

  /** Blobs that lie in the working directory, and how they are called there. */
  private shipped(): { name: string; link: string }[] {
    const { command, combiner, files, scripts } = this.assignment.job;
    const programs = [command, combiner]
      .map(programOf)
      .filter((name) => Object.hasOwn(scripts, name));
    return [...files.map(fileOf), ...programs.map((name) => ({ name, link: baseName(name) }))];
  }

  /** The environment that the shipped requirements.txt asks for; made once per worker and content. */
  private async virtualEnvOf({ signal, log, limits }: StartOptions): Promise<VirtualEnv> {
    const { scripts } = this.assignment.job;
    const { work, temp } = this.folder;
    const python = (await operatorsPython()) ?? "python3";
    const key = createHash("sha256").update(python);
    // What is shipped beside it may be installed by it, programs too; an archive is known by its name.
    for (const { name, link } of this.shipped()) {
      const content = await this.scratch.cache.digest(name, scripts[name], signal);
      key.update(`\n${JSON.stringify([link, name, content])}`);
    }
    const env = {
      PATH: SCRIPT_PATH,
      LANG: "C.UTF-8",
      HOME: temp,
      TMPDIR: temp,
      ...(this.settings.pipIndexUrl !== undefined && { PIP_INDEX_URL: this.settings.pipIndexUrl }),
    };
    return virtualEnv({
      runner: this.settings.runner,
      place: () => this.place(),
      key: key.digest("hex"),
      requirements: join(work, REQUIREMENTS),
      python,
      env,
      limits,
      signal,
      timeoutMs: VIRTUAL_ENV_MS,
      onOutput: (line) => log.note(line),
    });
  }

  /** Of the next process: the first one takes the layout. */
  private place(reads: string[] = []): ScriptPlace {
    const { layout, folder } = this;
    this.layout = undefined;
    return {
      attempt: folder.name,
      layout,
      cwd: folder.work,
      network: this.assignment.job.network,
      reads: this.virtualEnv === undefined ? reads : [...reads, this.virtualEnv.folder],
      writes: [],
    };
  }

  private async commandOf(command: string, signal: AbortSignal): Promise<Command> {
    const [program = "", ...args] = splitCommand(command);
    const { scripts } = this.assignment.job;
    if (!isBlob(program) || !Object.hasOwn(scripts, program)) return programCommand(program, args);
    const { cache } = this.scratch;
    const { bytes } = await cache.beginning(program, scripts[program], FIRST_LINE_BYTES, signal);
    const path = join(this.folder.work, baseName(program));
    return resolveCommand(path, bytes, args, this.pythonHere());
  }

  private pythonHere(): string | undefined {
    return this.virtualEnv && join(this.virtualEnv.folder, "bin", "python");
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
