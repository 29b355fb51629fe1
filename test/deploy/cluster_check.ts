import type {
  V1NetworkPolicyPeer as Peer,
  V1Container,
  V1Deployment,
  V1Ingress,
  V1NetworkPolicy,
  V1PodDisruptionBudget,
  V1PodSpec,
  V1PodTemplateSpec,
  V1Probe,
  V1Service,
  V1StatefulSet,
} from "@kubernetes/client-node";
import type { Manifest } from "../../deploy/render.ts";

/** A user makes it himself: it says where the storage is, which only he knows. */
const GIVEN_SECRET = "blob";
const GRACE_SECONDS = 30;

type Workload = (V1Deployment | V1StatefulSet) & { kind: string };
type Labels = Record<string, string> | undefined;

/** What must hold between the objects of a cluster, and of each pod: every fault in words. */
export function clusterFaults(manifests: Manifest[]): string[] {
  const all = new Cluster(manifests);
  return [
    ...all.namespaceFaults(),
    ...all.workloads.flatMap((workload) => all.workloadFaults(workload)),
    ...all.of<V1Service>("Service").flatMap((service) => all.serviceFaults(service)),
    ...all.of<V1Ingress>("Ingress").flatMap((ingress) => all.ingressFaults(ingress)),
    ...all.of<V1PodDisruptionBudget>("PodDisruptionBudget").flatMap((b) => all.budgetFaults(b)),
    ...all.of<V1NetworkPolicy>("NetworkPolicy").flatMap((policy) => all.policyFaults(policy)),
    ...all.denyFaults(),
  ];
}

class Cluster {
  private readonly manifests: Manifest[];
  readonly workloads: Workload[];

  constructor(manifests: Manifest[]) {
    this.manifests = manifests;
    this.workloads = [...this.of<Workload>("Deployment"), ...this.of<Workload>("StatefulSet")];
  }

  of<T>(kind: string): T[] {
    return this.manifests.filter((each) => each.kind === kind) as unknown as T[];
  }

  private has(kind: string, name: string | undefined): boolean {
    return this.manifests.some((each) => each.kind === kind && each.metadata.name === name);
  }

  private get pods(): V1PodTemplateSpec[] {
    return this.workloads.flatMap(({ spec }) => spec?.template ?? []);
  }

  private selected(labels: Labels): V1PodTemplateSpec[] {
    return this.pods.filter((pod) => includes(pod.metadata?.labels, labels));
  }

  namespaceFaults(): string[] {
    const [namespace, ...more] = this.of<Manifest>("Namespace");
    if (namespace === undefined || more.length > 0) return ["there is not exactly one namespace"];
    const { name, labels } = namespace.metadata;
    const faults = this.manifests
      .filter((each) => each.kind !== "Namespace" && each.metadata.namespace !== name)
      .map((each) => `${each.kind} ${each.metadata.name}: not in namespace ${name}`);
    if (labels?.["pod-security.kubernetes.io/enforce"] !== "restricted")
      faults.push(`Namespace ${name}: does not enforce "restricted"`);
    return faults;
  }

  workloadFaults(workload: Workload): string[] {
    const { kind, metadata, spec } = workload;
    const at = `${kind} ${metadata?.name}`;
    const template = spec?.template as V1PodTemplateSpec;
    const faults: string[] = [];
    const say = (isWrong: boolean, message: string) => isWrong && faults.push(`${at}: ${message}`);
    const matches = spec?.selector.matchLabels;
    say(!includes(template.metadata?.labels, matches), "its selector does not match its own pods");
    say(this.selected(matches).length !== 1, "its selector matches other pods, too");
    if (kind === "StatefulSet") {
      const { serviceName } = spec as V1StatefulSet["spec"] & object;
      const service = this.of<V1Service>("Service").find((s) => s.metadata?.name === serviceName);
      say(service === undefined, `there is no Service ${serviceName}, its serviceName`);
      say(service?.spec?.clusterIP !== "None", `Service ${serviceName} is not headless`);
      say(!service?.spec?.publishNotReadyAddresses, `Service ${serviceName} hides pods that start`);
    }
    if (metadata?.name === "worker") say(spec?.replicas !== undefined, "replicas undo a scaling");
    else say((spec?.replicas ?? 1) < 2 && !isDouble(workload), "one replica is no replica");
    if (metadata?.name === "worker") faults.push(...cellFaults(template, at));
    const pod = template.spec as V1PodSpec;
    // Azurite would wait for idle connections, and has nothing to finish.
    const { terminationGracePeriodSeconds: grace = 0 } = pod;
    say(grace < GRACE_SECONDS && !isDouble(workload), "its grace is short");
    say(grace < ownGraceSeconds(pod) && !isDouble(workload), "it is killed in its grace");
    return [...faults, ...this.podFaults(pod, at)];
  }

  private podFaults(pod: V1PodSpec, at: string): string[] {
    const faults: string[] = [];
    const say = (isWrong: boolean, message: string) => isWrong && faults.push(`${at}: ${message}`);
    say(!this.has("ServiceAccount", pod.serviceAccountName), "it has no ServiceAccount of its own");
    say(pod.automountServiceAccountToken !== false, "a token is mounted");
    const { securityContext: own } = pod;
    say(own?.runAsNonRoot !== true, "it may run as root");
    say(!own?.runAsUser, "it has no uid");
    say(own?.seccompProfile?.type !== "RuntimeDefault", "it has no seccomp profile");
    for (const field of ["hostNetwork", "hostPID", "hostIPC"] as const)
      say(pod[field] === true, `it has ${field}`);
    const volumes = new Set((pod.volumes ?? []).map(({ name }) => name));
    for (const volume of pod.volumes ?? []) {
      const isAllowed = volume.emptyDir || volume.secret || volume.configMap || volume.projected;
      say(!isAllowed, `volume ${volume.name} is of a kind that "restricted" refuses`);
      say(
        volume.emptyDir !== undefined && !volume.emptyDir.sizeLimit,
        `${volume.name} has no limit`,
      );
    }
    for (const container of [...(pod.initContainers ?? []), ...pod.containers])
      faults.push(...this.containerFaults(container, `${at}, ${container.name}`, volumes));
    return faults;
  }

  private containerFaults(container: V1Container, at: string, volumes: Set<string>): string[] {
    const faults: string[] = [];
    const say = (isWrong: boolean, message: string) => isWrong && faults.push(`${at}: ${message}`);
    const { securityContext: own, resources, image = "" } = container;
    say(own?.allowPrivilegeEscalation !== false, "it may gain privileges");
    say(own?.privileged === true, "it is privileged");
    say(own?.readOnlyRootFilesystem !== true, "its root file system can be written to");
    say(!own?.capabilities?.drop?.includes("ALL"), "it keeps capabilities");
    say((own?.capabilities?.add ?? []).length > 0, "it adds capabilities");
    say(!/:[^:/]+$/.test(image) || image.endsWith(":latest"), `${image} has no fixed version`);
    for (const what of ["cpu", "memory"]) {
      say(resources?.limits?.[what] === undefined, `it has no limit of ${what}`);
      say(resources?.requests?.[what] === undefined, `it requests no ${what}`);
    }
    for (const kind of ["startupProbe", "readinessProbe", "livenessProbe"] as const) {
      const probe = container[kind];
      if (probe === undefined) faults.push(`${at}: it has no ${kind}`);
      else faults.push(...probeFaults(probe, container).map((fault) => `${at}: ${kind}: ${fault}`));
    }
    for (const { configMapRef, secretRef } of container.envFrom ?? []) {
      if (configMapRef !== undefined)
        say(
          !this.has("ConfigMap", configMapRef.name),
          `there is no ConfigMap ${configMapRef.name}`,
        );
      if (secretRef !== undefined)
        say(!this.hasSecret(secretRef.name), `no Secret ${secretRef.name}`);
    }
    // A volume of a claim template is declared by its StatefulSet.
    for (const { name } of container.volumeMounts ?? [])
      say(!volumes.has(name) && !this.isClaimed(name), `there is no volume ${name}`);
    return faults;
  }

  private hasSecret(name: string | undefined): boolean {
    return this.has("Secret", name) || name === GIVEN_SECRET;
  }

  private isClaimed(name: string): boolean {
    return this.of<V1StatefulSet>("StatefulSet").some(({ spec }) =>
      spec?.volumeClaimTemplates?.some(({ metadata }) => metadata?.name === name),
    );
  }

  serviceFaults({ metadata, spec }: V1Service): string[] {
    const at = `Service ${metadata?.name}`;
    const pods = this.selected(spec?.selector);
    if (spec?.selector === undefined || pods.length === 0)
      return [`${at}: its selector matches nothing`];
    return (spec.ports ?? [])
      .filter(({ targetPort, port }) => !pods.every((pod) => exposes(pod, targetPort ?? port)))
      .map(({ targetPort, port }) => `${at}: no pod of it has port ${targetPort ?? port}`);
  }

  ingressFaults({ metadata, spec }: V1Ingress): string[] {
    const services = this.of<V1Service>("Service");
    const paths = (spec?.rules ?? []).flatMap(({ http }) => http?.paths ?? []);
    return paths.flatMap(({ backend }) => {
      const service = services.find((each) => each.metadata?.name === backend.service?.name);
      const { name, number } = backend.service?.port ?? {};
      const port = service?.spec?.ports?.find((each) => each.name === name || each.port === number);
      return port === undefined ? [`Ingress ${metadata?.name}: there is no such service port`] : [];
    });
  }

  budgetFaults({ metadata, spec }: V1PodDisruptionBudget): string[] {
    const at = `PodDisruptionBudget ${metadata?.name}`;
    const pods = this.selected(spec?.selector?.matchLabels);
    if (spec?.selector === undefined || pods.length !== 1)
      return [`${at}: its selector matches nothing`];
    return spec.maxUnavailable === 0 ? [`${at}: it blocks every drain`] : [];
  }

  policyFaults({ metadata, spec }: V1NetworkPolicy): string[] {
    const at = `NetworkPolicy ${metadata?.name}`;
    const peers = [
      ...(spec?.ingress ?? []).flatMap((rule) => (rule as { from?: Peer[] }).from ?? []),
      ...(spec?.egress ?? []).flatMap((rule) => rule.to ?? []),
    ].filter(({ namespaceSelector }) => namespaceSelector === undefined);
    const selectors = [spec?.podSelector, ...peers.map(({ podSelector }) => podSelector)];
    const faults = selectors.flatMap((selector) => {
      const { matchLabels, matchExpressions = [] } = selector ?? {};
      const wanted = matchExpressions.flatMap(({ key, values = [] }) =>
        values.map((value) => ({ [key]: value })),
      );
      if (matchLabels !== undefined) wanted.push(matchLabels);
      return wanted.filter((labels) => this.selected(labels).length === 0);
    });
    return faults.map((labels) => `${at}: nothing has ${JSON.stringify(labels)}`);
  }

  /** Whatever no policy allows is denied, to all. */
  denyFaults(): string[] {
    const denies = this.of<V1NetworkPolicy>("NetworkPolicy").some(
      ({ spec }) =>
        Object.keys(spec?.podSelector ?? {}).length === 0 &&
        ["Ingress", "Egress"].every((type) => spec?.policyTypes?.includes(type)) &&
        (spec?.ingress ?? []).length === 0 &&
        (spec?.egress ?? []).length === 0,
    );
    return denies ? [] : ["no NetworkPolicy denies by default"];
  }
}

/** What runs scripts has nothing that they could take, nor a way to those that have. */
function cellFaults({ metadata, spec }: V1PodTemplateSpec, at: string): string[] {
  const faults: string[] = [];
  const say = (isWrong: boolean, message: string) => isWrong && faults.push(`${at}: ${message}`);
  const cell = spec?.containers.find(({ name }) => name === "runner");
  const others = spec?.containers.filter((each) => each !== cell) ?? [];
  if (cell === undefined) return [`${at}: scripts run in the worker's own container`];
  say(!cell.args?.includes("--closed"), "its runner is not closed");
  say([...(cell.env ?? []), ...(cell.envFrom ?? [])].length > 0, "its runner has an environment");
  const uid = cell.securityContext?.runAsUser;
  const uids = others.map((each) => each.securityContext?.runAsUser);
  const podUid = spec?.securityContext?.runAsUser;
  say(uid === undefined || uid === podUid || uids.includes(uid), "its runner is the worker's user");
  say(spec?.shareProcessNamespace === true, "its containers see each other's processes");
  for (const { name, readOnly } of cell.volumeMounts ?? []) {
    const isEmpty = spec?.volumes?.find((volume) => volume.name === name)?.emptyDir !== undefined;
    const isShared = others.some((other) =>
      other.volumeMounts?.some((mount) => mount.name === name),
    );
    say(!isEmpty, `its runner mounts ${name}, which is not empty`);
    say(isShared && readOnly !== true, `its runner can write to ${name}, which is the worker's`);
  }
  const { labels, annotations } = metadata ?? {};
  const skipped = annotations?.["azure.workload.identity/skip-containers"] === "runner";
  const identified = labels?.["azure.workload.identity/use"] === "true";
  say(identified && !skipped, "its runner is given the identity");
  const worker = others.find(({ name }) => name === "worker");
  const address = worker?.env?.find(({ name }) => name === "MR_RUNNER")?.value ?? "";
  say(!cell.args?.includes(address), "its runner is not where the worker looks");
  return faults;
}

/** What a process may take to end, after its preStop, and with some time to say so. */
function ownGraceSeconds({ containers }: V1PodSpec): number {
  const { env = [], lifecycle } = containers[0] ?? {};
  const ms = Number(env.find(({ name }) => name === "MR_GRACE_MS")?.value ?? 0);
  return Number(lifecycle?.preStop?.exec?.command?.at(-1) ?? 0) + ms / 1_000 + 10;
}

/** Azurite stands for the storage on a laptop: one is all there can be. */
function isDouble({ metadata }: Workload): boolean {
  return metadata?.name === "azurite";
}

function includes(labels: Labels, wanted: Labels): boolean {
  const pairs = Object.entries(wanted ?? {});
  return pairs.length > 0 && pairs.every(([key, value]) => labels?.[key] === value);
}

function exposes(pod: V1PodTemplateSpec, port: string | number): boolean {
  return (pod.spec?.containers ?? []).some((container) => hasPort(container, port));
}

function hasPort({ ports = [] }: V1Container, wanted: string | number): boolean {
  return ports.some(({ name, containerPort }) => name === wanted || containerPort === wanted);
}

function probeFaults(probe: V1Probe, container: V1Container): string[] {
  const { exec, grpc, httpGet, tcpSocket } = probe;
  const ways = [exec, grpc, httpGet, tcpSocket].filter((way) => way !== undefined);
  if (ways.length !== 1) return ["it asks in no way, or in several"];
  const port = grpc?.port ?? httpGet?.port ?? tcpSocket?.port;
  if (port !== undefined && !hasPort(container, port)) return [`the container has no port ${port}`];
  return [];
}
