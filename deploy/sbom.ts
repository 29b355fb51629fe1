/**
 * `npm run sbom`: what the images are made of, in CycloneDX. npm's own list leaves out what a development
 * dependency needs as well, so it is asked about a lock file that has no such in it.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "..");

interface Lock {
  packages: Record<string, { dev?: boolean; devDependencies?: object }>;
}

const read = (name: string) => JSON.parse(readFileSync(join(ROOT, name), "utf8")) as unknown;

const folder = mkdtempSync(join(tmpdir(), "mr-sbom-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const { devDependencies: _, ...manifest } = read("package.json") as Record<string, unknown>;
const lock = read("package-lock.json") as Lock;
delete lock.packages[""]?.devDependencies;
for (const [path, { dev }] of Object.entries(lock.packages)) if (dev) delete lock.packages[path];
writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
writeFileSync(join(folder, "package-lock.json"), JSON.stringify(lock));
const { status, stdout, stderr } = spawnSync(
  "npm",
  ["sbom", "--package-lock-only", "--sbom-format", "cyclonedx", "--omit", "optional"],
  { cwd: folder, encoding: "utf8", maxBuffer: 1 << 26 },
);
if (status !== 0) process.stderr.write(`npm sbom failed: ${stderr}\n`);
else process.stdout.write(stdout);
process.exitCode = status ?? 1;
