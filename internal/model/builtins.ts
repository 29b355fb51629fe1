import { programOf } from "./command.ts";

/** Names that need no script: nothing is started for them. */
const REDUCERS = ["aggregate", "sum", "count", "min", "max", "distinct", "identity"] as const;
export type Builtin = (typeof REDUCERS)[number];

/** The built-in reducer that a command names. */
export function builtinReducer(command: string): Builtin | undefined {
  return REDUCERS.find((name) => name === command.trim());
}

/** Whether a command names the one built-in mapper: lines as they are. */
export function isIdentity(command: string): boolean {
  return command.trim() === "identity";
}

/** Whether a command runs without a script. */
export function isBuiltin(command: string): boolean {
  return builtinReducer(command) !== undefined;
}

/** What is wrong with a built-in's name in this place, or undefined. */
export function builtinFault(command: string, role: "mapper" | "reducer" | "combiner") {
  const name = REDUCERS.find((builtin) => builtin === programOf(command));
  if (name === undefined) return undefined;
  if (name !== command.trim()) return `the built-in "${name}" takes no arguments`;
  if (role === "mapper" && name !== "identity") return `"${name}" is a reducer, not a mapper`;
  if (role === "combiner" && name === "count")
    return 'a combiner may run any number of times, so "count" cannot be one: print 1 with each key and use "sum"';
  return undefined;
}

/**
 * The combiner of a job. Built-in reducers whose results can be reduced again combine
 * without being asked to, as Hadoop's `aggregate` does.
 */
export function combinerOf(combiner: string, reducer: string): string {
  if (combiner !== "") return isIdentity(combiner) ? "" : combiner;
  const builtin = builtinReducer(reducer);
  return builtin === undefined || builtin === "count" || builtin === "identity" ? "" : builtin;
}

/** Whether a command wants the values of a key in order, so that equal ones stand together. */
export function wantsValuesInOrder(command: string): boolean {
  const builtin = builtinReducer(command);
  return builtin === "distinct" || builtin === "aggregate";
}
