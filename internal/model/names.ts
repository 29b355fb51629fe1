/**
 * Names from outside: containers and blobs. The rules are Azure's (so that a
 * name good on a laptop is good in the cloud) and stricter where a name could
 * become a path: no `..`, no empty segment, no backslash, no control byte.
 */

/** Where scripts, intermediate data, results and logs live. */
export const CONTAINER = {
  scripts: "dfs-scripts",
  intermediate: "dfs-intermediate",
  dest: "dfs-dest",
  logs: "dfs-logs",
} as const;

/** Says what is wrong with a container name, or undefined. */
export function containerNameFault(name: string): string | undefined {
  if (name.length < 3 || name.length > 63) return "a container name has 3 to 63 characters";
  if (!/^[a-z0-9-]+$/.test(name))
    return "a container name has only lower-case letters, digits and hyphens";
  if (name.startsWith("-") || name.endsWith("-") || name.includes("--"))
    return "hyphens of a container name stand single, between letters or digits";
  return undefined;
}

/** Says what is wrong with a blob name, or undefined. */
export function blobNameFault(name: string): string | undefined {
  if (name.length === 0) return "a blob name is not empty";
  if (name.length > 1024) return "a blob name has at most 1,024 characters";
  const fault = pathFault(name);
  if (fault !== undefined) return fault;
  if (name.endsWith("/") || name.endsWith(".")) return "a blob name does not end in a slash or dot";
  return undefined;
}

/** Of a blob that is there, whoever named it: why it cannot be read by that name, or undefined. */
export function foundNameFault(name: string): string | undefined {
  if (name === "" || name.length > 1024 || !name.isWellFormed()) return "no blob has such a name";
  // Whoever reads a URL takes these out of its path, and storage takes one slash for the other.
  if (/(^|\/)\.{1,2}(\/|$)/.test(name)) return "its segments . and .. would lead to another blob";
  if (name.includes("\\")) return "its \\ would lead to another blob";
  return undefined;
}

/** Says what is wrong with a blob prefix ("" and a trailing slash are fine), or undefined. */
export function prefixFault(prefix: string): string | undefined {
  if (prefix === "") return undefined;
  if (prefix.length > 1024) return "a prefix has at most 1,024 characters";
  return pathFault(prefix.endsWith("/") ? prefix.slice(0, -1) : prefix);
}

/** Of one UTF-16 unit. */
const UTF8_BYTES_MAX = 3;

function pathFault(name: string): string | undefined {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f\\]/.test(name)) return "control characters and \\ are not allowed";
  if (!name.isWellFormed()) return "the name is not valid Unicode";
  for (const segment of name.split("/")) {
    if (segment === "") return "a name has no empty segment (//, or a slash at its start)";
    if (segment === "." || segment === "..") return "the segments . and .. are not allowed";
    if (segment.length > 255 / UTF8_BYTES_MAX && new TextEncoder().encode(segment).length > 255)
      return "a segment between slashes has at most 255 bytes";
  }
  return undefined;
}

/** A container, and a prefix in it ("" for all of it). */
export interface Location {
  container: string;
  prefix: string;
}

/** Splits CONTAINER or CONTAINER/PREFIX; returns a fault as a string. */
export function parseLocation(text: string): Location | string {
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text))
    return "give a container or container/prefix, not a URL";
  const slash = text.indexOf("/");
  const container = slash < 0 ? text : text.slice(0, slash);
  const prefix = slash < 0 ? "" : text.slice(slash + 1);
  return containerNameFault(container) ?? prefixFault(prefix) ?? { container, prefix };
}

/** `parseLocation` for text that was validated before. */
export function locationOf(text: string): Location {
  const location = parseLocation(text);
  if (typeof location === "string") throw new Error(`${text}: ${location}`);
  return location;
}

/** The blob name of a file under a prefix, with exactly one slash between. */
export function joinName(prefix: string, name: string): string {
  if (prefix === "") return name;
  return prefix.endsWith("/") ? prefix + name : `${prefix}/${name}`;
}

/** A prefix that means "the folder": it never matches a longer sibling's name. */
export function folderPrefix(prefix: string): string {
  return prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`;
}
