import { format } from "node:util";
import { pino, stdTimeFunctions } from "pino";
import type { Logger } from "../../internal/model/logger.ts";
import { printableJson } from "../../internal/model/printable.ts";
import { say } from "./log_output.ts";
import { Repeats } from "./repeats.ts";

/** Of every line; a field of the same name would stand there twice. */
const OF_EVERY_LINE = ["level", "time", "name", "pid", "msg"];

/** JSON lines on stderr: `level` is a word, `time` is ISO 8601 in UTC. Warnings do not flood it. */
export function createLogger(name: string, level: string): Logger {
  const lines = pino(
    {
      level,
      base: { name, pid: process.pid },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: withNamesOfTheirOwn },
    },
    { write: (line: string) => say(printableJson(line)) },
  );
  const warnings = new Repeats((fields, message) => lines.warn(fields, message));
  const errors = new Repeats((fields, message) => lines.error(fields, message));
  return {
    debug: (fields, message) => lines.debug(fields, message),
    info: (fields, message) => lines.info(fields, message),
    warn: (fields, message) => warnings.say(fields, message),
    error: (fields, message) => errors.say(fields, message),
  };
}

function withNamesOfTheirOwn(fields: Record<string, unknown>): Record<string, unknown> {
  if (!OF_EVERY_LINE.some((name) => name in fields)) return fields;
  const renamed = Object.entries(fields).map(([name, value]) =>
    OF_EVERY_LINE.includes(name) ? [`${name}_`, value] : [name, value],
  );
  return Object.fromEntries(renamed);
}

/**
 * What libraries print, and Node's own warnings, become lines like all others; left alone, they are
 * no JSON, and wait for a reader.
 */
export function hearLibraries(name: string): void {
  const logger = createLogger(name, process.env.MR_LOG_LEVEL === "silent" ? "silent" : "info");
  const hear = (...words: unknown[]) => logger.warn({ error: format(...words) }, "a library says");
  for (const method of ["trace", "debug", "info", "log", "warn", "error"] as const)
    console[method] = hear;
  process.removeAllListeners("warning");
  process.on("warning", ({ name: kind, message }) => {
    // What is experimental in Node, and used here, was chosen.
    if (kind !== "ExperimentalWarning") logger.warn({ kind, error: message }, "Node warns");
  });
}
