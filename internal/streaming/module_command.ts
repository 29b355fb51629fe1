import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ModuleRole } from "./module_exports.ts";
import type { ModuleData, Separators } from "./module_host.ts";

const HOST = fileURLToPath(new URL("./module_host.ts", import.meta.url));
const MB = 1_048_576;

/** What a module's process reads besides its own folder: Node, the host, and what says how that is written. */
export const MODULE_READS = [dirname(process.execPath), join(dirname(HOST), "../..")];

/**
 * The argument vector that runs a user's module as a script.
 * @param memoryBytes that it may take, 0: any amount. Node is told, or it would be content with less.
 */
export function moduleCommand(
  path: string,
  role: ModuleRole,
  separators: Separators,
  memoryBytes: number,
): string[] {
  const data: ModuleData = {
    path,
    role,
    separators: {
      input: Buffer.from(separators.input).toString("base64"),
      keyFields: separators.keyFields,
      output: Buffer.from(separators.output).toString("base64"),
    },
  };
  const heap = memoryBytes > 0 ? [`--max-old-space-size=${Math.ceil(memoryBytes / MB)}`] : [];
  const options = ["--disable-warning=ExperimentalWarning", ...heap];
  return [process.execPath, ...options, HOST, JSON.stringify(data)];
}
