import { type ParseArgsOptionsConfig, parseArgs } from "node:util";

/** Wrong words on the command line: exit code 2. */
export class UsageError extends Error {}

interface Flag {
  /** What stands for the value in the help, e.g. N; none for a switch. */
  value?: string;
  multiple?: boolean;
  help: string;
}

export interface Command {
  name: string;
  /** Its positional arguments, as the help writes them. */
  usage: string;
  summary: string;
  flags: Record<string, Flag>;
  positionals: [min: number, max: number];
  run(args: Args): Promise<number>;
}

export interface Args {
  positionals: string[];
  text(flag: string): string | undefined;
  list(flag: string): string[];
  has(flag: string): boolean;
  /** @throws UsageError when it is not a whole number of at least `min`. */
  whole(flag: string, min: number): number | undefined;
}

export function parseCommand(command: Command, argv: string[]): Args {
  const options: ParseArgsOptionsConfig = {};
  for (const [name, flag] of Object.entries(command.flags))
    options[name] =
      flag.value === undefined
        ? { type: "boolean" }
        : { type: "string", multiple: flag.multiple ?? false };
  let parsed: { values: Record<string, unknown>; positionals: string[] };
  try {
    parsed = parseArgs({ args: argv, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const { values, positionals } = parsed;
  const [min, max] = command.positionals;
  if (positionals.length < min || positionals.length > max)
    throw new UsageError(`usage: mr ${command.name} ${command.usage}`);
  const text = (flag: string) => values[flag] as string | undefined;
  return {
    positionals,
    text,
    list: (flag) => (values[flag] as string[] | undefined) ?? [],
    has: (flag) => values[flag] === true,
    whole: (flag, least) => {
      const given = text(flag);
      if (given === undefined) return undefined;
      const value = Number(given);
      if (!Number.isInteger(value) || value < least)
        throw new UsageError(`--${flag}: a whole number of at least ${least} is expected`);
      return value;
    },
  };
}

export function helpOf(command: Command): string {
  const rows = Object.entries(command.flags).map(([name, { value, help }]) => [
    `  --${name}${value === undefined ? "" : ` ${value}`}`,
    help,
  ]);
  const width = Math.max(0, ...rows.map(([left]) => (left ?? "").length));
  const flags = rows.map(([left, right]) => `${(left ?? "").padEnd(width + 2)}${right}`);
  return [`usage: mr ${command.name} ${command.usage}`, "", command.summary, "", ...flags].join(
    "\n",
  );
}

/** NAME=VALUE pairs. */
export function pairs(flag: string, given: string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((pair) => {
      const at = pair.indexOf("=");
      if (at <= 0) throw new UsageError(`--${flag} ${pair}: NAME=VALUE is expected`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

export const SERVER_FLAG = {
  server: { value: "URL", help: "the proxy (default: $MR_SERVER or http://127.0.0.1:8080)" },
};
export const JSON_FLAG = { json: { help: "print JSON, for programs" } };
