import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { V1Container, V1Deployment, V1PodSpec, V1StatefulSet } from "@kubernetes/client-node";
import { parse } from "yaml";
import { Client } from "../../cmd/mr/client.ts";
import type { Manifest } from "../../deploy/render.ts";
import { kustomizedFrom } from "../support/kustomization.ts";
import { freePort, scratchFolder, until } from "../support/processes.ts";
import { useAzurite, useEtcd } from "../support/servers.ts";
import type { ImageRole, Images } from "./images.ts";
import { Pod } from "./pod.ts";

const DEPLOY = join(import.meta.dirname, "..", "..", "deploy");
const COMPOSE = join(DEPLOY, "..", "compose.yaml");
const MASTERS = 3;

/** What stands in no place but where it belongs: in a worker's environment, and in its files. */
export const CANARY = "canary-5f1d0e7c9b";

/** The pods of deploy/base with certificates, on loopback, with an etcd and an Azurite beside them. */
export class ClusterOfPods implements AsyncDisposable {
  readonly client: Client;
  readonly ports: { masters: number[]; proxy: number; etcd: number; blob: number };
  readonly masters: Pod[] = [];
  readonly workers: Pod[] = [];
  private readonly images: Images;
  private readonly manifests: Manifest[];
  private readonly given: Record<string, Record<string, string>>;
  private readonly stack: AsyncDisposableStack;
  private workersMade = 0;

  static async start(images: Images): Promise<ClusterOfPods> {
    await using stack = new AsyncDisposableStack();
    const etcd = stack.use(await useEtcd());
    const azurite = stack.use(await useAzurite());
    const folder = stack.use(await scratchFolder("pods"));
    const masters: number[] = [];
    for (let i = 0; i < MASTERS; i += 1) masters.push(await freePort());
    const ports = {
      masters,
      proxy: await freePort(),
      etcd: portOf(etcd.address),
      blob: portOf(azurite.endpoint),
    };
    const certificates = makeCertificates(folder.path);
    const given = {
      blob: { BLOB_CONNECTION: `${azurite.connectionString}X-Canary=${CANARY};` },
      coordinator: { ETCD_ADDRESS: etcd.address },
      ...certificates,
    };
    const cluster = new ClusterOfPods(images, ports, given, folder.path, stack.move());
    try {
      await cluster.startServers();
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
    return cluster;
  }

  private constructor(
    images: Images,
    ports: ClusterOfPods["ports"],
    given: Record<string, Record<string, string>>,
    folder: string,
    stack: AsyncDisposableStack,
  ) {
    this.images = images;
    this.ports = ports;
    this.given = given;
    this.stack = stack;
    this.manifests = kustomizedFrom(folder, "base", ["components/tls"]);
    this.client = new Client(`http://127.0.0.1:${ports.proxy}`);
  }

  private async startServers(): Promise<void> {
    for (const [i, port] of this.ports.masters.entries())
      this.masters.push(
        await this.pod("master", `master-${i}`, {
          RPC_PORT: String(port),
          MR_NETWORK_JOBS: "allow",
        }),
      );
    const proxy = await this.pod("proxy", "proxy-0", {
      HTTP_HOST: "127.0.0.1",
      HTTP_PORT: String(this.ports.proxy),
    });
    await until(`a proxy that is ready\n${proxy.said}`, () => this.isReady(), 60_000).catch(
      (error: Error) => {
        throw new Error(`${error.message}\n${this.said}\n${proxy.said}`);
      },
    );
  }

  private async isReady(): Promise<boolean> {
    const answer = await fetch(`http://127.0.0.1:${this.ports.proxy}/readyz`).catch(
      () => undefined,
    );
    if (answer?.ok !== true) return false;
    const { workers } = (await answer.json()) as { workers: number | null };
    return workers !== null;
  }

  /** As `kubectl scale deploy worker`. */
  async scale(replicas: number): Promise<void> {
    while (this.workers.length < replicas) {
      this.workersMade += 1;
      const name = `worker-${this.workersMade}`;
      this.workers.push(await this.pod("worker", name, this.workerEnv()));
    }
    const surplus = this.workers.splice(replicas);
    await Promise.all(surplus.map((pod) => pod.delete()));
  }

  /** In place of the others: one container that is a worker and a runner, as in compose.yaml. */
  async replaceByCombined(): Promise<Pod> {
    await this.scale(0);
    const { services } = parse(readFileSync(COMPOSE, "utf8"), { merge: true }) as {
      services: { worker: { entrypoint: string[]; cap_add: string[]; volumes: string[] } };
    };
    const { entrypoint, cap_add, volumes: folders } = services.worker;
    const spec = this.specOf("worker");
    const [worker] = spec.containers;
    const mounts = folders.map((mountPath) => ({ name: mountPath.slice(1), mountPath }));
    const container: V1Container = {
      ...worker,
      name: "worker",
      command: entrypoint,
      securityContext: {
        ...worker?.securityContext,
        runAsUser: 0,
        runAsGroup: 0,
        capabilities: { drop: ["ALL"], add: cap_add },
      },
      volumeMounts: [
        ...(worker?.volumeMounts ?? []).filter(({ mountPath }) => !folders.includes(mountPath)),
        ...mounts,
      ],
    };
    // Files that are everybody's in the container are the scripts', too.
    const volumes = (spec.volumes ?? []).map((volume) =>
      volume.secret === undefined
        ? volume
        : { ...volume, secret: { ...volume.secret, defaultMode: 0o440 } },
    );
    const combined = { ...spec, containers: [container], volumes };
    const pod = await this.pod("worker", "worker-combined", this.workerEnv(), combined);
    this.workers.push(pod);
    return pod;
  }

  private workerEnv(): Record<string, string> {
    const masters = this.ports.masters.map((port) => `127.0.0.1:${port}`).join();
    return { RPC_ADDRESS: masters, CANARY };
  }

  private specOf(role: ImageRole): V1PodSpec {
    const kind = role === "master" ? "StatefulSet" : "Deployment";
    const found = this.manifests.find((each) => each.kind === kind && each.metadata.name === role);
    const workload = found as unknown as V1Deployment | V1StatefulSet;
    return workload.spec?.template.spec as V1PodSpec;
  }

  private async pod(
    role: ImageRole,
    name: string,
    env: Record<string, string>,
    spec = this.specOf(role),
  ): Promise<Pod> {
    const { images, given } = this;
    const replace: [string, string] = ["@mr-runner", `@mr-runner-${process.pid}-${name}`];
    const pod = await Pod.start({ name, spec, images, given, env, replace });
    return this.stack.use(pod);
  }

  /** The pod whose master leads. */
  async leader(): Promise<Pod> {
    const { address } = await this.client.json<{ address: string }>("/leader");
    const leader = this.masters[this.ports.masters.indexOf(portOf(`http://${address}`))];
    if (leader === undefined) throw new Error(`no pod of ours leads, but ${address}`);
    return leader;
  }

  async workersConnected(): Promise<number> {
    const { workers } = await this.client.json<{ workers: { state: string }[] }>("/workers");
    return workers.filter(({ state }) => state === "connected").length;
  }

  /** As the first worker has said when it started. */
  get hasLandlock(): boolean {
    return /"landlock":[1-9]/.test(this.workers[0]?.container("worker").said ?? "");
  }

  get said(): string {
    return [...this.masters, ...this.workers].map((pod) => pod.said).join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stack.disposeAsync();
  }
}

function portOf(url: string): number {
  return Number(new URL(url).port);
}

/** Secrets of the component `tls`, by name. */
function makeCertificates(folder: string): Record<string, Record<string, string>> {
  const certs = join(folder, "certs");
  execFileSync("sh", [join(DEPLOY, "tls", "make-certificates.sh"), certs], { stdio: "ignore" });
  const read = (name: string) => readFileSync(join(certs, name), "utf8");
  const secrets = ["master", "worker", "proxy"].map((role) => [
    `tls-${role}`,
    {
      "ca.crt": read("ca.crt"),
      "tls.crt": read(`mr-${role}.crt`),
      "tls.key": read(`mr-${role}.key`),
      canary: CANARY,
    },
  ]);
  return Object.fromEntries(secrets);
}
