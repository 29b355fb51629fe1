import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

type Env = Record<string, string | undefined>;

/** In the second life: FILE:KEY of the settings. */
const HANDED_OVER = "MR_HANDED_OVER";
/** What a program needs from its very start, and everybody may see. */
const OPEN =
  /^(PATH|HOME|LANG|TZ|TMPDIR|LD_LIBRARY_PATH|SSL_CERT_\w+|NODE_OPTIONS|NODE_EXTRA_CA_CERTS|UV_\w+)$/;

const CIPHER = "aes-256-gcm";
const KEY_BYTES = 32;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * The settings of a process that runs user code. A script of the same user can read
 * the environment that its worker was started with (/proc/PID/environ), whatever
 * becomes of `process.env`. So the process starts itself once more, in place, with
 * an environment without secrets, and takes its settings from a file that is gone
 * before any script runs. The file is encrypted: should the process die in between,
 * the key has died with it.
 *
 * Call it before anything else is loaded.
 */
export function hiddenEnvironment(): Env {
  const handed = process.env[HANDED_OVER];
  if (handed !== undefined) {
    delete process.env[HANDED_OVER];
    // In memory only: libraries may look for a proxy here, /proc shows what we began with.
    return Object.assign(process.env, takeOver(handed));
  }
  const { execve } = process;
  if (execve === undefined || process.platform === "win32") return process.env;
  const open = Object.entries(process.env).flatMap(([name, value]) =>
    OPEN.test(name) && value !== undefined ? [[name, value]] : [],
  );
  const argv = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const env = { ...Object.fromEntries(open), [HANDED_OVER]: handOver(process.env) };
  process.removeAllListeners("warning"); // The call is announced as experimental.
  execve.call(process, process.execPath, argv, env);
  return process.env; // Not reached: the call replaces the program or ends it.
}

function handOver(settings: Env): string {
  const key = randomBytes(KEY_BYTES);
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv(CIPHER, key, iv);
  const text = Buffer.concat([cipher.update(JSON.stringify(settings)), cipher.final()]);
  const folder = settings.MR_SCRATCH_DIR || tmpdir();
  const file = join(folder, `mr-settings-${randomBytes(8).toString("hex")}`);
  try {
    mkdirSync(folder, { recursive: true });
    const body = Buffer.concat([iv, cipher.getAuthTag(), text]);
    writeFileSync(file, body, { mode: 0o600, flag: "wx" });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    process.stderr.write(`${folder} cannot be written to (${code}): set MR_SCRATCH_DIR\n`);
    process.exit(1);
  }
  return `${file}:${key.toString("hex")}`;
}

function takeOver(handed: string): Env {
  const colon = handed.lastIndexOf(":");
  const file = handed.slice(0, colon);
  const body = readFileSync(file);
  rmSync(file);
  const key = Buffer.from(handed.slice(colon + 1), "hex");
  const decipher = createDecipheriv(CIPHER, key, body.subarray(0, IV_BYTES));
  decipher.setAuthTag(body.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
  const text = decipher.update(body.subarray(IV_BYTES + TAG_BYTES));
  return JSON.parse(Buffer.concat([text, decipher.final()]).toString()) as Env;
}
