import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Scripts } from "./bench_case.ts";
import { PYTHON } from "./settings.ts";

const EXAMPLES = join(import.meta.dirname, "..", "..", "..", "examples");

/** The examples' word count, as everybody has to run it: under one interpreter. */
export async function canonicalScripts(folder: string): Promise<Scripts> {
  const scripts = {
    mapper: join(folder, "mapper.py"),
    reducer: join(folder, "reducer.py"),
    module: join(folder, "word_count.ts"),
  };
  for (const name of ["mapper.py", "reducer.py"]) {
    const text = await readFile(join(EXAMPLES, "py_scripts", "word_count", name), "utf8");
    await writeFile(join(folder, name), text.replace(/^#!.*/, `#!${PYTHON}`), { mode: 0o755 });
  }
  const module = await readFile(join(EXAMPLES, "js_modules", "word_count.ts"));
  await writeFile(scripts.module, module);
  return scripts;
}
