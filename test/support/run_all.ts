/** `npm test`: brings what the tests need, checks the code, runs every test. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "..", "..");
const BIN = join(ROOT, "node_modules", ".bin");

/** What the tests use of the machine, and the Debian package that has it. */
const NEEDS: [what: string, there: () => boolean, debian: string][] = [
  ["etcd", () => existsSync("/usr/bin/etcd") || existsSync("/usr/local/bin/etcd"), "etcd-server"],
  ["python3", () => works("python3", ["--version"]), "python3"],
  [
    "azure-storage-blob for /usr/bin/python3",
    () => works("/usr/bin/python3", ["-c", "import azure.storage.blob"]),
    "python3-azure-storage",
  ],
  ["openssl", () => works("openssl", ["version"]), "openssl"],
  [
    "kubectl of 1.27 or later (https://kubernetes.io/docs/tasks/tools)",
    () => works("kubectl", ["kustomize", join(ROOT, "deploy", "overlays", "local-azurite")]),
    "kubernetes-client",
  ],
  ["chromium", () => existsSync("/usr/bin/chromium"), "chromium"],
  ["curl", () => works("curl", ["--version"]), "curl"],
];

/** What building and running the images takes; where it cannot be had those tests say so, and why. */
const WANTED: typeof NEEDS = ["buildah", "debootstrap", "crun"].map((tool) => [
  tool,
  () => works(tool, ["--version"]),
  tool,
]);

function works(command: string, args: string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore" }).status === 0;
}

function bringServers(): void {
  const missing = NEEDS.filter(([, there]) => !there());
  const canInstall = process.getuid?.() === 0 && works("apt-get", ["--version"]);
  const packages = missing.map(([, , debian]) => debian);
  if (missing.length > 0 && !canInstall) {
    const names = missing.map(([what]) => what).join(", ");
    const command = `apt-get update && apt-get install -y ${packages.join(" ")}`;
    quit(`the tests need ${names}. As root, on Debian: ${command}`);
  }
  const wanted = WANTED.filter(([, there]) => canInstall && !there());
  if (packages.length + wanted.length === 0) return;
  apt(["update", "-qq"]);
  if (packages.length > 0) apt(["install", "-y", "-qq", "--no-install-recommends", ...packages]);
  for (const [, , name] of wanted) apt(["install", "-y", "-qq", name], false);
  const still = missing.filter(([, there]) => !there()).map(([what]) => what);
  if (still.length > 0) quit(`still missing after the installation: ${still.join(", ")}`);
}

function apt(args: string[], isNeeded = true): void {
  process.stdout.write(`apt-get ${args.join(" ")}\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const { status, stderr } = spawnSync("apt-get", args, { env, encoding: "utf8" });
  if (status !== 0 && isNeeded) quit(`apt-get ${args.join(" ")} failed:\n${stderr}`);
}

function quit(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

function run(args: string[]): void {
  // Everything that is started finds the project's own Node first; Python stays buffered.
  const env = { ...process.env, PATH: `${BIN}:${process.env.PATH}`, PYTHONUNBUFFERED: "" };
  const { status } = spawnSync(process.execPath, args, { cwd: ROOT, stdio: "inherit", env });
  if (status !== 0) process.exit(status ?? 1);
}

bringServers();
run([join(import.meta.dirname, "check.ts")]);
run(["--test", "--test-concurrency=2", "test/**/*.test.ts"]);
