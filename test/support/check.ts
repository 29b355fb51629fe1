/** `npm run check`: everything about the code that needs no server. Exits 1 at the first fault. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "..", "..");
const BIN = join(ROOT, "node_modules", ".bin");
const PATH = `${BIN}:${process.env.PATH}`;
/** A boundary check that sees nothing finds nothing. */
const MODULES_MIN = 60;

function run(what: string, command: string, args: string[], cwd = ROOT): string {
  const startMs = performance.now();
  const { status, stdout, stderr, error } = spawnSync(join(BIN, command), args, {
    cwd,
    env: { ...process.env, PATH },
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (status !== 0) fail(what, `${stdout}${stderr}${error?.message ?? ""}`);
  say(`${what} (${Math.round(performance.now() - startMs)} ms)`);
  return stdout;
}

function fail(what: string, why: string): never {
  process.stderr.write(`check failed: ${what}\n${why}\n`);
  process.exit(1);
}

function say(line: string): void {
  process.stdout.write(`check: ${line}\n`);
}

function checkBoundaries(): void {
  const json = run("import boundaries", "depcruise", ["--output-type", "json", "internal", "cmd"]);
  const { summary } = JSON.parse(json) as {
    summary: {
      totalCruised: number;
      violations: { rule: { name: string }; from: string; to: string }[];
    };
  };
  // In this form of output the exit code says nothing.
  if (summary.violations.length > 0) {
    const lines = summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`);
    fail("import boundaries", lines.join("\n"));
  }
  if (summary.totalCruised < MODULES_MIN)
    fail("import boundaries", `only ${summary.totalCruised} modules were seen`);
  say(`import boundaries held by ${summary.totalCruised} modules`);
}

/** Generates again, elsewhere, and compares. */
function checkGenerated(): void {
  const folder = mkdtempSync(join(tmpdir(), "mr-generated-"));
  try {
    for (const name of ["proto", "buf.yaml", "buf.gen.yaml"])
      cpSync(join(ROOT, name), join(folder, name), { recursive: true });
    run("buf generate", "buf", ["generate"], folder);
    const [fresh, committed] = [folder, ROOT].map((root) =>
      contents(join(root, "internal/rpc/gen")),
    );
    if (JSON.stringify(fresh) !== JSON.stringify(committed))
      fail("generated code", "internal/rpc/gen is not what proto/ gives: npm run generate");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Compiles again, elsewhere, and compares. */
function checkKernel(): void {
  const folder = mkdtempSync(join(tmpdir(), "mr-kernel-"));
  try {
    const place = "internal/shuffle/kernel";
    const fresh = join(folder, "kernel.wasm");
    run("compile the kernel", "asc", [
      ...[`${place}/assembly/kernel.ts`, "--config", `${place}/asconfig.json`],
      ...["--outFile", fresh],
    ]);
    if (!readFileSync(fresh).equals(readFileSync(join(ROOT, place, "kernel.wasm"))))
      fail("kernel", "kernel.wasm is not what its assembly/ gives: npm run kernel");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function contents(folder: string): [string, string][] {
  return (readdirSync(folder, { recursive: true }) as string[])
    .filter((name) => statSync(join(folder, name)).isFile())
    .toSorted()
    .map((name) => [name, readFileSync(join(folder, name), "utf8")]);
}

run("format and lint", "biome", ["check", "."]);
run("types", "tsc", ["-p", "."]);
checkBoundaries();
run("buf lint", "buf", ["lint"]);
checkGenerated();
checkKernel();
