import { spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { V1Container, V1PodSpec, V1Volume } from "@kubernetes/client-node";
import { dockerfiles } from "../../deploy/render.ts";
import { atExit, scratchFolder, until } from "../support/processes.ts";
import { DEFAULT_FILTER, type ImageRole, type Images } from "./images.ts";

/** Arguments of `unshare`: crun refuses a host that has cgroups of both versions, though it is to use none. */
const CRUN = [
  ...["--mount", "sh", "-c"],
  'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec crun "$@"',
  "crun",
];

/** A kubelet waits longer. */
const RESTART_MS = 500;
const MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];
const READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

export interface PodOptions {
  name: string;
  spec: V1PodSpec;
  images: Images;
  /** Of Secrets and ConfigMaps: what is in them, by name. */
  given: Record<string, Record<string, string>>;
  /** Instead of what the manifest says, by name: pods share the host's loopback here. */
  env: Record<string, string>;
  /** In every argument and value. */
  replace: [from: string, to: string];
}

/**
 * As much of a kubelet as it takes to run a pod of our manifests by crun: its containers with their users, mounts,
 * environments and filters, read-only roots, no capability, started again when they end. All share the host's
 * network, where the pods of a cluster would have one each.
 */
export class Pod implements AsyncDisposable {
  readonly name: string;
  private readonly options: PodOptions;
  private readonly folder: Awaited<ReturnType<typeof scratchFolder>>;
  private readonly containers: Container[];

  static async start(options: PodOptions): Promise<Pod> {
    const folder = await scratchFolder(`pod-${options.name}`);
    const pod = new Pod(options, folder);
    for (const container of pod.containers) container.start();
    return pod;
  }

  private constructor(options: PodOptions, folder: Awaited<ReturnType<typeof scratchFolder>>) {
    this.name = options.name;
    this.options = options;
    this.folder = folder;
    for (const volume of options.spec.volumes ?? []) this.makeVolume(volume);
    this.containers = options.spec.containers.map((container) => {
      const bundle = join(folder.path, "bundles", container.name);
      mkdirSync(bundle, { recursive: true });
      writeFileSync(join(bundle, "config.json"), JSON.stringify(this.configOf(container)));
      const state = join(folder.path, "crun");
      return new Container(`${options.name}-${container.name}`, container.name, bundle, state);
    });
  }

  /** On this machine. */
  volumePath(name: string): string {
    return join(this.folder.path, "volumes", name);
  }

  private makeVolume({ name, emptyDir, secret }: V1Volume): void {
    const path = this.volumePath(name);
    mkdirSync(path, { recursive: true });
    if (emptyDir !== undefined) {
      chownSync(path, 0, this.options.spec.securityContext?.fsGroup ?? 0);
      return chmodSync(path, 0o2777);
    }
    const files = this.options.given[secret?.secretName ?? ""];
    if (files === undefined) throw new Error(`volume ${name}: nothing is given for it`);
    for (const [file, text] of Object.entries(files)) {
      writeFileSync(join(path, file), text);
      chownSync(join(path, file), 0, this.options.spec.securityContext?.fsGroup ?? 0);
      chmodSync(join(path, file), secret?.defaultMode ?? 0o644);
    }
  }

  private configOf(container: V1Container): object {
    const { spec, images } = this.options;
    const role = container.image?.replace(/^mr-|:.*$/g, "") as ImageRole;
    const own = container.securityContext;
    const user = {
      uid: own?.runAsUser ?? spec.securityContext?.runAsUser,
      gid: own?.runAsGroup ?? spec.securityContext?.runAsGroup,
      additionalGids: [spec.securityContext?.fsGroup ?? []].flat(),
    };
    const { start, env } = imageSettings(role);
    const args = [...(container.command ?? start), ...(container.args ?? [])];
    return {
      ociVersion: "1.0.2",
      process: {
        user,
        args: args.map((arg) => this.replaced(arg)),
        env: [...env, ...this.envOf(container)],
        cwd: "/app",
        capabilities: capabilitiesOf(own?.capabilities?.add ?? []),
        noNewPrivileges: own?.allowPrivilegeEscalation === false,
      },
      root: { path: images.roots[role], readonly: own?.readOnlyRootFilesystem },
      hostname: this.name,
      mounts: [...SYSTEM_MOUNTS, ...this.mountsOf(container)],
      linux: {
        namespaces: ["pid", "ipc", "uts", "mount"].map((type) => ({ type })),
        maskedPaths: MASKED,
        readonlyPaths: READ_ONLY,
        seccomp: defaultFilter(),
      },
    };
  }

  private mountsOf({ volumeMounts = [] }: V1Container): object[] {
    return volumeMounts.map(({ name, mountPath, readOnly }) => ({
      destination: mountPath,
      type: "bind",
      source: this.volumePath(name),
      options: ["rbind", "nosuid", "nodev", readOnly === true ? "ro" : "rw"],
    }));
  }

  private envOf(container: V1Container): string[] {
    const { given, env, name } = this.options;
    const own: Record<string, string> = {};
    for (const { secretRef, configMapRef } of container.envFrom ?? [])
      Object.assign(own, given[secretRef?.name ?? configMapRef?.name ?? ""]);
    for (const { name: variable, value, valueFrom } of container.env ?? []) {
      const path = valueFrom?.fieldRef?.fieldPath;
      const isCpu = valueFrom?.resourceFieldRef?.resource === "limits.cpu";
      const isNamespace = path === "metadata.namespace";
      const found = path === "status.podIP" ? "127.0.0.1" : isNamespace ? "mr" : path ? name : "";
      // As a kubelet does: a variable from before may be named.
      own[variable] =
        value?.replace(/\$\((\w+)\)/g, (whole, word) => own[word] ?? whole) ??
        (isCpu ? "2" : found);
    }
    // What has no environment of its own is not given one.
    const changed = Object.keys(own).length > 0 ? { ...own, ...env } : {};
    return Object.entries(changed).map(([key, value]) => `${key}=${this.replaced(value)}`);
  }

  replaced(text: string): string {
    return text.replaceAll(...this.options.replace);
  }

  /** Whether all containers pass; only probes that run a command are asked. */
  probe(kind: "startupProbe" | "readinessProbe" | "livenessProbe"): boolean {
    return this.options.spec.containers.every((each) => {
      const command = each[kind]?.exec?.command?.map((word) => this.replaced(word));
      return command === undefined || this.container(each.name).exec(command).status === 0;
    });
  }

  container(name: string): Container {
    const found = this.containers.find((each) => each.name === name);
    if (found === undefined) throw new Error(`${this.name} has no container ${name}`);
    return found;
  }

  /** What its containers have said. */
  get said(): string {
    return this.containers.map(({ name, said }) => `== ${this.name}, ${name}\n${said}`).join("\n");
  }

  /** As `kubectl delete pod`: told to end, and ended after its grace. */
  async delete(graceMs = 30_000): Promise<void> {
    await Promise.all(this.containers.map((container) => container.end("TERM", graceMs)));
    await this.folder[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.containers.map((container) => container.end("KILL", 10_000)));
    await this.folder[Symbol.asyncDispose]();
  }
}

export class Container {
  readonly name: string;
  private readonly id: string;
  private readonly bundle: string;
  private readonly crun: string[];
  private isEnding = false;
  private running = Promise.resolve();
  private output = "";
  starts = 0;

  constructor(id: string, name: string, bundle: string, state: string) {
    this.id = id;
    this.name = name;
    this.bundle = bundle;
    this.crun = [...CRUN, "--root", state, "--cgroup-manager", "disabled"];
  }

  get said(): string {
    return this.output;
  }

  /** Runs until it ends, and is started again then. */
  start(): void {
    const forget = atExit(() => this.signal("KILL"));
    this.running = (async () => {
      while (!this.isEnding) {
        await this.once();
        this.call("delete", "--force", this.id);
        if (!this.isEnding) await delay(RESTART_MS);
      }
      forget();
    })();
  }

  private async once(): Promise<void> {
    this.starts += 1;
    const args = [...this.crun, "run", "--bundle", this.bundle, this.id];
    const child = spawn("unshare", args, { stdio: ["ignore", "pipe", "pipe"] });
    const keep = (chunk: Buffer) => {
      this.output = (this.output + chunk.toString()).slice(-50_000);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    await new Promise((resolve) => child.once("close", resolve));
  }

  /** Runs a command in it, as `kubectl exec`. */
  exec(
    command: string[],
    env: Record<string, string> = {},
    user?: string,
  ): { status: number | null; stdout: string; stderr: string } {
    const pairs = Object.entries(env).flatMap(([name, value]) => ["--env", `${name}=${value}`]);
    const options = [...pairs, ...(user === undefined ? [] : ["--user", user])];
    const args = [...this.crun, "exec", ...options, this.id, ...command];
    return spawnSync("unshare", args, { encoding: "utf8" });
  }

  /** To the first process of the container. */
  signal(name: string): void {
    this.call("kill", this.id, name);
  }

  private call(...args: string[]): void {
    spawnSync("unshare", [...this.crun, ...args]);
  }

  async end(signal: "TERM" | "KILL", graceMs: number): Promise<void> {
    this.isEnding = true;
    let hasEnded = false;
    void this.running.then(() => {
      hasEnded = true;
    });
    this.signal(signal);
    await until(`the end of ${this.id}`, () => hasEnded, graceMs).catch(() => {
      this.signal("KILL");
    });
    await this.running;
  }
}

const SYSTEM_MOUNTS = [
  { destination: "/proc", type: "proc", source: "proc" },
  {
    destination: "/dev",
    type: "tmpfs",
    source: "tmpfs",
    options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
  },
  {
    destination: "/dev/shm",
    type: "tmpfs",
    source: "shm",
    options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
  },
  {
    destination: "/sys",
    type: "bind",
    source: "/sys",
    options: ["rbind", "nosuid", "noexec", "nodev", "ro"],
  },
];

/** What an image is started with, as its Dockerfile says. */
function imageSettings(role: ImageRole): { start: string[]; env: string[] } {
  const text = dockerfiles().get(`docker/${role}.Dockerfile`) ?? "";
  const list = (name: string) =>
    JSON.parse(new RegExp(`^${name} (\\[.*\\])$`, "m").exec(text)?.[1] ?? "[]") as string[];
  const env = [...text.matchAll(/^ENV (\S+)$/gm)].map(([, pair = ""]) => pair);
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  return { start: [...list("ENTRYPOINT"), ...list("CMD")], env: [path, ...env] };
}

interface FilterRule {
  names: string[];
  action: string;
  args?: object[] | null;
  errnoRet?: number;
  includes?: { caps?: string[]; arches?: string[] };
}

/** @param added to none at all. */
function capabilitiesOf(added: string[]): object {
  const names = added.map((name) => `CAP_${name}`);
  return { bounding: names, effective: names, permitted: names, inheritable: [], ambient: [] };
}

/** The runtimes' own default for a container without any capability. */
function defaultFilter(): object {
  const filter = JSON.parse(readFileSync(DEFAULT_FILTER, "utf8")) as {
    defaultAction: string;
    defaultErrnoRet: number;
    syscalls: FilterRule[];
  };
  const arch = process.arch === "arm64" ? "arm64" : "amd64";
  const applies = ({ includes }: FilterRule) =>
    includes?.caps === undefined && (includes?.arches?.includes(arch) ?? true);
  return {
    defaultAction: filter.defaultAction,
    defaultErrnoRet: filter.defaultErrnoRet,
    syscalls: filter.syscalls.filter(applies).map(({ names, action, args, errnoRet }) => ({
      names,
      action,
      ...(args && { args }),
      ...(errnoRet !== undefined && { errnoRet }),
    })),
  };
}
