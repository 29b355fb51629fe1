#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { join } from "node:path";
import "../common/node_version.ts";
import { ServerError } from "./client.ts";
import { catCommand, downloadCommand, logsCommand, uploadCommand } from "./data_commands.ts";
import { demoCommand } from "./demo_command.ts";
import {
  cancelCommand,
  jobsCommand,
  statusCommand,
  watchCommand,
  workersCommand,
} from "./job_commands.ts";
import { localCommand } from "./local_command.ts";
import { type Command, helpOf, parseCommand, UsageError } from "./options.ts";
import { replayCommand } from "./replay_command.ts";
import { runCommand } from "./run_command.ts";
import { say, tell } from "./terminal.ts";
import { tokenCommand } from "./token_command.ts";

const COMMANDS: Command[] = [
  localCommand,
  demoCommand,
  uploadCommand,
  runCommand,
  jobsCommand,
  statusCommand,
  watchCommand,
  logsCommand,
  catCommand,
  cancelCommand,
  workersCommand,
  downloadCommand,
  replayCommand,
  tokenCommand,
];

function overview(): string {
  const width = Math.max(...COMMANDS.map(({ name }) => name.length));
  const rows = COMMANDS.map(
    ({ name, summary }) => `  ${name.padEnd(width)}  ${summary.split("\n")[0]}`,
  );
  return `usage: mr COMMAND [arguments]\n\n${rows.join("\n")}\n\nmr COMMAND --help tells more. mr --version tells which mr it is.`;
}

function version(): string {
  const manifest = readFileSync(join(import.meta.dirname, "../../package.json"), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

async function main([name, ...argv]: string[]): Promise<number> {
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    tell(overview());
    return name === undefined ? 2 : 0;
  }
  if (name === "--version") {
    tell(`mr ${version()}, Node.js ${process.version}`);
    return 0;
  }
  const command = COMMANDS.find((candidate) => candidate.name === name);
  if (command === undefined) throw new UsageError(`mr ${name}: no such command\n\n${overview()}`);
  if (argv.includes("--help") || argv.includes("-h")) {
    tell(helpOf(command));
    return 0;
  }
  return command.run(parseCommand(command, argv));
}

// A reader that has seen enough (`mr cat ... | head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 0 : 1);
});

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const known = error instanceof UsageError || error instanceof ServerError;
  say(known ? (error as Error).message : String((error as Error).stack));
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
