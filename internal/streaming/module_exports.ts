import { Worker as Thread } from "node:worker_threads";
import { parse } from "es-module-lexer/js";

/** What a module can do in a job: the name of the function that it exports. */
export type ModuleRole = "map" | "reduce" | "combine";

const ROLES: readonly string[] = ["map", "reduce", "combine"] satisfies ModuleRole[];
const MODULE = /\.(ts|mts|js|mjs)$/;

/** What is longer is lexed on a thread of its own: there are texts for which that takes minutes. */
const SHORT_CHARS = 32 * 1024;
const LEXING_MS = 10_000;
const HEAP_MB = 256;

/**
 * Which of a module's functions a file exports, without running it. Empty: it is an
 * ordinary script, as is all that cannot be parsed. `export *` is not followed.
 * @param path its name tells the language.
 */
export async function moduleRoles(path: string, text: string): Promise<Set<ModuleRole>> {
  if (!MODULE.test(path)) return new Set();
  const names = text.length > SHORT_CHARS ? await namesByThread(text) : exportedNames(text);
  return new Set(names.filter(isRole));
}

async function namesByThread(text: string): Promise<string[]> {
  const thread = new Thread(new URL("./module_lexer.ts", import.meta.url), {
    workerData: text,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  });
  const timer = setTimeout(() => void thread.terminate(), LEXING_MS);
  try {
    return await new Promise((resolve) => {
      thread.once("message", resolve);
      thread.once("error", () => resolve([]));
      thread.once("exit", () => resolve([]));
    });
  } finally {
    clearTimeout(timer);
    void thread.terminate();
  }
}

/** The lexer reads TypeScript too, and knows what is only a type. */
export function exportedNames(text: string): string[] {
  try {
    const [, exports] = parse(text);
    return exports.flatMap((each) =>
      each.type === "reexport-all" || each.typeOnly ? [] : [each.name],
    );
  } catch {
    return [];
  }
}

function isRole(name: string): name is ModuleRole {
  return ROLES.includes(name);
}
