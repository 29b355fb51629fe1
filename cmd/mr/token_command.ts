import { createHash, randomBytes } from "node:crypto";
import { appendFile, readFile } from "node:fs/promises";
import { accidental, isTokenName, parseTokens, placeFault } from "../../internal/model/access.ts";
import { MrError, messageOf } from "../../internal/model/errors.ts";
import { type Args, type Command, UsageError } from "./options.ts";

const SECRET_BYTES = 32;

export const tokenCommand: Command = {
  name: "token",
  usage: "NAME [--places PLACE,PLACE...] [--file FILE]",
  summary:
    "makes a token for a client of the proxy, and prints it: it is kept nowhere\n\n" +
    "The line that goes into the proxy's file of tokens (MR_TOKENS) is added to FILE, or printed\n" +
    "after the token. It holds no secret, only a hash. A place is CONTAINER, BEGINNING*,\n" +
    "CONTAINER/FOLDER or CONTAINER/BEGINNING*, with r: before it to read only, with w: to write only;\n" +
    "* alone is everything. A job needs to read its data and its scripts (in dfs-scripts), and to\n" +
    "write its output (all of dfs-dest where it names none).",
  flags: {
    places: {
      value: "LIST",
      help: "what the client may use (default NAME-*,dfs-scripts/NAME,dfs-dest/NAME)",
    },
    containers: { value: "LIST", help: "the same" },
    file: {
      value: "FILE",
      help: "the file of tokens to add the line to; the proxy reads it again",
    },
  },
  positionals: [1, 1],
  run: makeToken,
};

async function makeToken(args: Args): Promise<number> {
  const [name = ""] = args.positionals;
  if (!isTokenName(name)) throw new UsageError("a name has 1 to 64 letters, digits, . _ or -");
  const places = placesOf(args, name);
  const token = `mr_${randomBytes(SECRET_BYTES).toString("base64url")}`;
  const hash = createHash("sha256").update(token).digest("hex");
  const line = `${name} sha256:${hash} ${places.join(",")}\n`;
  const file = args.text("file");
  const isOwn = !args.has("places") && !args.has("containers");
  if (file !== undefined) await addLine(file, line, isOwn);
  process.stdout.write(`${token}\n${file === undefined ? line : ""}`);
  return 0;
}

/** Without others, what is the client's own: containers by its name, and a folder where all have theirs. */
function placesOf(args: Args, name: string): string[] {
  const given = args.text("places") ?? args.text("containers");
  const own = `${name}-*,dfs-scripts/${name},dfs-dest/${name}`;
  const places = (given ?? own).split(",").map((each) => each.trim());
  for (const place of places) {
    const fault = placeFault(place);
    if (fault !== undefined)
      throw new UsageError(`${given === undefined ? "name the places: " : ""}${place}: ${fault}`);
  }
  return places;
}

/** Nothing is added to a file that the proxy would refuse then; nor places by a name that are another's. */
async function addLine(file: string, line: string, isOwn: boolean): Promise<void> {
  const before = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw new UsageError(`${file}: ${error.message}`);
  });
  const separator = before === "" || before.endsWith("\n") ? "" : "\n";
  try {
    const entries = parseTokens(before + separator + line);
    const last = entries.at(-1);
    const shared = isOwn && last !== undefined ? accidental(last, entries) : undefined;
    if (shared !== undefined)
      throw new MrError("invalid", `${shared}: take another name, or give --places`);
  } catch (error) {
    throw new UsageError(`${file}: ${messageOf(error)}`);
  }
  await appendFile(file, separator + line, { mode: 0o600 });
}
