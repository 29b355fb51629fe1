import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratchFolder } from "./processes.ts";

/** A file's records, each ended by one LF: what the contract says a mapper reads. */
export function normalized(content: Uint8Array): Buffer {
  // latin1 keeps every byte as it is.
  const text = Buffer.from(content).toString("latin1").replace(/\r\n?/g, "\n");
  return Buffer.from(text === "" || text.endsWith("\n") ? text : `${text}\n`, "latin1");
}

/**
 * What a sequential run gives, sorted:
 * cat INPUT | mapper | LC_ALL=C sort -s -t TAB -k1,1 | reducer | sort.
 */
export async function oracle(input: Uint8Array, mapper: string, reducer: string): Promise<Buffer> {
  await using folder = await scratchFolder("oracle");
  const [from, m, r] = [join(folder.path, "input"), join(folder.path, "m"), join(folder.path, "r")];
  writeFileSync(from, input);
  writeFileSync(m, mapper);
  writeFileSync(r, reducer);
  return pipeline(`python3 ${m} < ${from} | ${SORT_BY_KEY} | python3 ${r} | sort`);
}

export const SORT_BY_KEY = "sort -s -t '\t' -k1,1";

/** Runs a shell pipeline; the whole of it must succeed. */
export function pipeline(command: string): Buffer {
  const result = spawnSync("bash", ["-o", "pipefail", "-c", command], {
    // Unbuffered, a mapper takes four times as long.
    env: { ...process.env, LC_ALL: "C", LANG: "C.UTF-8", PYTHONUNBUFFERED: "" },
    maxBuffer: 1 << 30,
  });
  if (result.status !== 0) throw new Error(`${command}: ${result.stderr}`);
  return result.stdout;
}

/** Lines in byte order, as `LC_ALL=C sort` would give them. */
export function sortedLines(bytes: Buffer): Buffer {
  const result = spawnSync("sort", [], {
    input: bytes,
    env: { PATH: process.env.PATH, LC_ALL: "C" },
    maxBuffer: 1 << 30,
  });
  return result.stdout;
}
