import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import {
  ANYONE,
  type Caller,
  callerOf,
  parseTokens,
  sharedScripts,
  type TokenEntry,
} from "../model/access.ts";
import { MrError, messageOf } from "../model/errors.ts";
import type { Logger } from "../model/logger.ts";

const SHARED =
  "each of these may replace the scripts that the others run, and so read their data: " +
  "give each a folder of dfs-scripts";

/** Whose token it is; undefined: nobody's. */
export type Authenticate = (token: string) => Caller | undefined;

/** Without tokens whoever can reach the port may do all. */
export const noTokens: Authenticate = () => ANYONE;

/**
 * Tokens from a file (`MR_TOKENS`), read again when it is another: a mounted Secret
 * changes under a running process. A version that cannot be read changes nothing.
 */
export class TokenFile {
  private readonly path: string;
  private readonly logger: Logger;
  private entries: TokenEntry[];
  private version: string;
  /** Of a file that could not be read: said once, and tried again. */
  private refused = "";

  /** @throws MrError `invalid` where the file cannot be read, or not understood. */
  constructor(path: string, logger: Logger) {
    this.path = path;
    this.logger = logger;
    try {
      this.version = this.look();
      this.entries = parseTokens(readFileSync(path, "utf8"));
      this.warn();
    } catch (cause) {
      throw new MrError("invalid", `MR_TOKENS: ${path}: ${messageOf(cause)}`, { cause });
    }
  }

  /** Compares with every token, and in constant time: how long it takes tells nothing of them. */
  readonly authenticate: Authenticate = (token) => {
    this.refresh();
    const hash = createHash("sha256").update(token).digest();
    let found: TokenEntry | undefined;
    for (const entry of this.entries)
      if (timingSafeEqual(Buffer.from(entry.hash, "hex"), hash)) found = entry;
    return found && callerOf(found);
  };

  private warn(): void {
    const tokens = sharedScripts(this.entries);
    if (tokens.length > 0) this.logger.warn({ tokens }, SHARED);
  }

  private look(): string {
    const { ino, size, mtimeMs } = statSync(this.path);
    return `${ino} ${size} ${mtimeMs}`;
  }

  private refresh(): void {
    let version = "missing";
    try {
      version = this.look();
      if (version === this.version) return;
      this.entries = parseTokens(readFileSync(this.path, "utf8"));
      this.version = version;
      this.logger.info({ file: this.path, tokens: this.entries.length }, "tokens read again");
      this.warn();
    } catch (error) {
      const why = { file: this.path, error: messageOf(error) };
      if (version !== this.refused)
        this.logger.error(why, "the tokens cannot be read again; those of before hold");
      this.refused = version;
    }
  }
}
