/**
 * Types of a module that is a mapper, a reducer or a combiner: a .ts, .mts, .js or
 * .mjs file that exports `map`, `reduce` or `combine`. Put this file beside yours and
 * `import type` from it; it need not be shipped.
 *
 * The module runs in a thread of the worker, not in a process of its own:
 * - `process.chdir` is not there, and relative paths given to `fs` are not those of the
 *   working directory: `new URL("words.txt", import.meta.url)` names a shipped file.
 * - What it prints goes to the log of the attempt, not into the result;
 *   `console.error("reporter:counter:GROUP,NAME,1")` counts.
 * - It is ended when it takes more time or memory than it may. Processes that it
 *   starts are its own business: it has to end them.
 */

/**
 * Writes a record: `key`, the separator and `value`, or just `key`, which may be a whole
 * line then. Neither may have a line end in it.
 */
export type Emit = (key: string | number, value?: string | number) => void;

/** Called with each line, without its line end. A promise it returns is awaited. */
export type MapFunction = (line: string, emit: Emit) => void | Promise<void>;

/**
 * Called once for every run of equal keys. `values` are read while they are iterated
 * over, once: a group of any size takes no memory. What is not read is skipped.
 */
export type ReduceFunction = (
  key: string,
  values: Iterable<string>,
  emit: Emit,
) => void | Promise<void>;

/** A reducer over a part of a mapper's output: what it emits is reduced again. */
export type CombineFunction = ReduceFunction;

/**
 * `export const encoding: Encoding = "latin1"` makes each byte one character, in and
 * out, whatever the bytes mean; without it lines are UTF-8, and what is not valid
 * becomes U+FFFD.
 */
export type Encoding = "utf8" | "latin1";
