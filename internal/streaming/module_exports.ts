import { parse } from "es-module-lexer/js";

/** What a module can do in a job: the name of the function that it exports. */
export type ModuleRole = "map" | "reduce" | "combine";

const ROLES: readonly string[] = ["map", "reduce", "combine"] satisfies ModuleRole[];
const MODULE = /\.(ts|mts|js|mjs)$/;

/**
 * Which of a module's functions a file exports, without running it. Empty: it is an
 * ordinary script, as is all that cannot be parsed. `export *` is not followed.
 * @param path its name tells the language.
 */
export function moduleRoles(path: string, text: string): Set<ModuleRole> {
  if (!MODULE.test(path)) return new Set();
  return new Set(exportedNames(text).filter(isRole));
}

/** The lexer reads TypeScript too, and knows what is only a type. */
function exportedNames(text: string): string[] {
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
