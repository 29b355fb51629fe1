/**
 * `npm run bench`: the data plane against the floor, against the shell and against others, on two processors.
 * Contestants take turns; what counts is the median of each round's ratio, of results that were found right.
 * Then the storage and the control plane, by programs of their own.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { atExit, scratchFolder } from "../support/processes.ts";
import type { CaseResult } from "./data_plane/bench_case.ts";
import { CASES } from "./data_plane/cases/all.ts";
import { DataFolder } from "./data_plane/data_folder.ts";
import { pinTo } from "./data_plane/processors.ts";
import { jsonOf, summaryOf, tableOf } from "./data_plane/report.ts";
import { runCase } from "./data_plane/run_case.ts";
import { canonicalScripts } from "./data_plane/scripts.ts";
import { parseSettings, type Settings, USAGE } from "./data_plane/settings.ts";

const USAGE_ERROR = 2;
const INTERRUPTED = 130;

/** What is no job: each prints a table of its own. */
const PROGRAMS = [
  { name: "storage", file: "storage.ts", quick: ["--mb", "32", "--rounds", "1"] },
  { name: "control-plane", file: "control_plane.ts", quick: ["--quick"] },
];
const NAMES = [...CASES, ...PROGRAMS].map(({ name }) => name);

function isChosen({ name }: { name: string }, only: string[]): boolean {
  return only.length === 0 || only.some((one) => name.startsWith(one));
}

function checkNames(only: string[]): void {
  const unknown = only.find((name) => !NAMES.some((one) => one.startsWith(name)));
  if (unknown !== undefined) throw new Error(`--only ${unknown}: no such case; --list names them`);
}

function say(line: string): void {
  process.stderr.write(`bench: ${line}\n`);
}

async function runPrograms(settings: Settings, cpus: number[]): Promise<void> {
  for (const program of PROGRAMS.filter((one) => isChosen(one, settings.only))) {
    const args = [
      ...(settings.quick ? program.quick : []),
      ...(program.name === "control-plane" ? ["--cpus", cpus.join(",")] : []),
      ...(settings.json ? ["--json", `${settings.json}.${program.name}`] : []),
    ];
    process.stdout.write(`\n${program.name}\n`);
    const script = join(import.meta.dirname, program.file);
    const child = spawn(process.execPath, [script, ...args], { stdio: "inherit" });
    const forget = atExit(() => child.kill());
    const [code] = (await once(child, "exit")) as [number | null];
    forget();
    if (code !== 0) throw new Error(`${program.name} failed`);
  }
}

async function runCases(settings: Settings, cpus: number[]): Promise<void> {
  await using scratch = await scratchFolder("bench");
  const dataPath = settings.keepData ? resolve(settings.keepData) : join(scratch.path, "data");
  const scriptsPath = join(scratch.path, "scripts");
  for (const path of [dataPath, scriptsPath]) mkdirSync(path, { recursive: true });
  const site = {
    sizes: settings.sizes,
    data: new DataFolder(dataPath, say),
    scripts: await canonicalScripts(scriptsPath),
  };
  const results: CaseResult[] = [];
  for (const one of CASES.filter((each) => isChosen(each, settings.only))) {
    const result = await runCase(one, site, cpus, say);
    results.push(result);
    process.stdout.write(tableOf(result));
    if (settings.json) writeFileSync(settings.json, jsonOf(results, settings, cpus));
  }
  if (results.length > 0) process.stdout.write(summaryOf(results, settings.quick));
}

async function main(): Promise<number> {
  let settings: Settings;
  try {
    settings = parseSettings(process.argv.slice(2));
    checkNames(settings.only);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}`);
    return USAGE_ERROR;
  }
  if (settings.help || settings.list) {
    process.stdout.write(settings.help ? USAGE : NAMES.map((name) => `${name}\n`).join(""));
    return 0;
  }
  const cpus = pinTo(settings.cpus);
  // Unbuffered, a mapper takes four times as long.
  delete process.env.PYTHONUNBUFFERED;
  // Scopes do not end then, but what must not stay is known to the end of the process.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.once(signal, () => process.exit(INTERRUPTED));
  try {
    await runCases(settings, cpus);
    await runPrograms(settings, cpus);
    return 0;
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n`);
    return 1;
  }
}

process.exitCode = await main();
