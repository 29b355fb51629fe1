import { Transform } from "node:stream";
import { printable, printableJson } from "../../internal/model/printable.ts";

/**
 * The one way of the commands to a terminal. What is written past it is our own: numbers, and the
 * few sequences that draw progress.
 */

/** The answer, a line or several, on stdout. */
export function tell(text: string): void {
  process.stdout.write(`${printable(text)}\n`);
}

/** What is said beside it, on stderr. */
export function say(text: string): void {
  process.stderr.write(`${printable(text)}\n`);
}

/** A text that has its own line ends. */
export function show(out: NodeJS.WritableStream, text: string): void {
  out.write(printable(text));
}

export function tellJson(value: unknown): void {
  process.stdout.write(`${printableJson(JSON.stringify(value))}\n`);
}

/** Bytes as they are, but not for a terminal. */
export function filterFor(out: { isTTY?: boolean }): Transform {
  const decoder = new TextDecoder();
  const isTerminal = out.isTTY === true;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      done(null, isTerminal ? printable(decoder.decode(chunk, { stream: true })) : chunk);
    },
    flush(done) {
      done(null, isTerminal ? printable(decoder.decode()) : null);
    },
  });
}
