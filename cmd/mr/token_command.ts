import { createHash, randomBytes } from "node:crypto";
import { appendFile, readFile } from "node:fs/promises";
import { containerPatternFault, isTokenName, parseTokens } from "../../internal/model/access.ts";
import { messageOf } from "../../internal/model/errors.ts";
import { type Args, type Command, UsageError } from "./options.ts";

const SECRET_BYTES = 32;

export const tokenCommand: Command = {
  name: "token",
  usage: "NAME --containers CONTAINER,CONTAINER... [--file FILE]",
  summary:
    "makes a token for a client of the proxy, and prints it: it is kept nowhere\n\n" +
    "The line that goes into the proxy's file of tokens (MR_TOKENS) is added to FILE, or printed\n" +
    "after the token. It holds no secret, only a hash. A job needs the containers of its data and\n" +
    "its output (dfs-dest where it names none), and dfs-scripts if its scripts lie there.",
  flags: {
    containers: {
      value: "LIST",
      help: "what the client may use; dfs-* stands for all that begin so",
    },
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
  const containers = (args.text("containers") ?? "").split(",").map((each) => each.trim());
  for (const pattern of containers) {
    const fault = containerPatternFault(pattern);
    if (fault !== undefined) throw new UsageError(`--containers ${pattern}: ${fault}`);
  }
  const token = `mr_${randomBytes(SECRET_BYTES).toString("base64url")}`;
  const hash = createHash("sha256").update(token).digest("hex");
  const line = `${name} sha256:${hash} ${containers.join(",")}\n`;
  const file = args.text("file");
  if (file !== undefined) await addLine(file, line);
  process.stdout.write(`${token}\n${file === undefined ? line : ""}`);
  return 0;
}

/** Nothing is added to a file that the proxy would refuse then. */
async function addLine(file: string, line: string): Promise<void> {
  const before = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw new UsageError(`${file}: ${error.message}`);
  });
  const separator = before === "" || before.endsWith("\n") ? "" : "\n";
  try {
    parseTokens(before + separator + line);
  } catch (error) {
    throw new UsageError(`${file}: ${messageOf(error)}`);
  }
  await appendFile(file, separator + line, { mode: 0o600 });
}
