import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ScenarioInterpreter } from "./interpreter.ts";

/** MR_REWRITE=1 writes down what the core answers now; read the difference before you keep it. */
const rewrite = process.env.MR_REWRITE === "1";
const folder = import.meta.dirname;
const files = readdirSync(folder).filter((name) => name.endsWith(".txt"));

describe("scenarios of the scheduler core", () => {
  it("are there", () => assert.ok(files.length > 0));
  for (const file of files)
    it(file.slice(0, -4).replaceAll("-", " "), () => {
      const path = join(folder, file);
      const text = readFileSync(path, "utf8");
      const played = play(text);
      if (rewrite) writeFileSync(path, played);
      else assert.equal(played, text);
    });
});

/** Keeps comments and events; puts what the core answers under each event. */
function play(text: string): string {
  const interpreter = new ScenarioInterpreter();
  const out: string[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("  ")) continue;
    out.push(line);
    if (!line.startsWith("> ")) continue;
    for (const answer of interpreter.run(line.slice(2))) out.push(`  ${answer}`);
  }
  return out.join("\n");
}
