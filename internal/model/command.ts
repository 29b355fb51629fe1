/** Splits a command at spaces; quotes keep words together. There is no shell. */
export function splitCommand(command: string): string[] {
  const words: string[] = [];
  for (const match of command.matchAll(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g))
    words.push(match[0].replace(/"([^"]*)"|'([^']*)'/g, "$1$2"));
  return words;
}

/** The first word of a command: a blob of dfs-scripts, a program, or a built-in. */
export function programOf(command: string): string {
  return splitCommand(command)[0] ?? "";
}
