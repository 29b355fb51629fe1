import { randomUUID } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

type Env = Record<string, string | undefined>;

/** In the second life: where the settings wait. */
const HANDED_OVER = "MR_SETTINGS_FILE";
/** What every program may see. */
const OPEN = ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "NODE_EXTRA_CA_CERTS"];

/**
 * The settings of a process that runs user code. A script of the same user can read
 * the environment that its worker was started with (/proc/PID/environ), whatever
 * becomes of `process.env`. So the process starts itself once more, in place, with
 * an environment without secrets, and takes its settings from a file that is gone
 * before any script runs.
 */
export function hiddenEnvironment(): Env {
  const path = process.env[HANDED_OVER];
  if (path !== undefined) {
    delete process.env[HANDED_OVER];
    const settings = JSON.parse(readFileSync(path, "utf8")) as Env;
    rmSync(path);
    return settings;
  }
  const { execve } = process;
  if (execve === undefined || process.platform === "win32") return process.env;
  const file = join(tmpdir(), `mr-settings-${randomUUID()}`);
  const hadParent = process.send !== undefined;
  const settings = { ...process.env, ...(hadParent && { MR_PARENT_PID: String(process.ppid) }) };
  writeFileSync(file, JSON.stringify(settings), { mode: 0o600, flag: "wx" });
  const open = OPEN.filter((name) => process.env[name] !== undefined);
  const kept = open.map((name) => [name, process.env[name] as string]);
  process.removeAllListeners("warning");
  execve.call(
    process,
    process.execPath,
    [process.execPath, ...process.execArgv, ...process.argv.slice(1)],
    {
      ...Object.fromEntries(kept),
      [HANDED_OVER]: file,
    },
  );
  return process.env; // Not reached: the call replaces the program or ends it.
}
