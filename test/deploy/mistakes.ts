import assert from "node:assert/strict";
import type { Manifest } from "../../deploy/render.ts";

/** Somewhere in an object; planted mistakes are made through it. */
// biome-ignore lint/suspicious/noExplicitAny: a mistake has no type
export type Loose = any;

export const find = (manifests: Manifest[], kind: string, name: string): Loose => {
  const found = manifests.find((each) => each.kind === kind && each.metadata.name === name);
  assert.ok(found, `there is no ${kind} ${name}`);
  return found;
};
const runnerOf = (manifests: Manifest[]): Loose =>
  find(manifests, "Deployment", "worker").spec.template.spec.containers[1];
const containerOf = (manifests: Manifest[], kind: string, name: string): Loose =>
  find(manifests, kind, name).spec.template.spec.containers[0];

/** A slip that anybody could make, and what must be said of it. */
export const MISTAKES: [what: string, plant: (all: Manifest[]) => void, fault: RegExp][] = [
  [
    "a misspelled probe",
    (all) => {
      const master = containerOf(all, "StatefulSet", "master");
      master.livenesProbe = master.livenessProbe;
    },
    /livenesProbe: unknown field/,
  ],
  [
    "no probe",
    (all) => delete containerOf(all, "Deployment", "worker").livenessProbe,
    /worker: it has no livenessProbe/,
  ],
  [
    "a string as replicas",
    (all) => {
      find(all, "Deployment", "proxy").spec.replicas = "2";
    },
    /replicas: a number is expected, not string/,
  ],
  [
    "an API version that is no more",
    (all) => {
      find(all, "PodDisruptionBudget", "master").apiVersion = "policy/v1beta1";
    },
    /there is no API version policy\/v1beta1/,
  ],
  [
    "a kind of another version",
    (all) => {
      find(all, "Deployment", "worker").apiVersion = "v1";
    },
    /v1 has no Deployment/,
  ],
  [
    "a missing limit",
    (all) => delete containerOf(all, "Deployment", "worker").resources.limits.memory,
    /worker: it has no limit of memory/,
  ],
  [
    "a service whose selector matches nothing",
    (all) => {
      find(all, "Service", "proxy").spec.selector.app = "proxies";
    },
    /Service proxy: its selector matches nothing/,
  ],
  [
    "a deployment whose selector does not match its pods",
    (all) => {
      find(all, "Deployment", "worker").spec.selector.matchLabels.app = "workers";
    },
    /Deployment worker: its selector does not match/,
  ],
  [
    "a budget that matches nothing",
    (all) => {
      find(all, "PodDisruptionBudget", "etcd").spec.selector.matchLabels.app = "etcds";
    },
    /PodDisruptionBudget etcd: its selector matches nothing/,
  ],
  [
    "a budget that blocks every drain",
    (all) => {
      find(all, "PodDisruptionBudget", "master").spec.maxUnavailable = 0;
    },
    /blocks every drain/,
  ],
  [
    "another serviceName",
    (all) => {
      find(all, "StatefulSet", "master").spec.serviceName = "masters";
    },
    /there is no Service masters/,
  ],
  [
    "a Service that is not headless",
    (all) => delete find(all, "Service", "master").spec.clusterIP,
    /Service master is not headless/,
  ],
  [
    "replicas of workers",
    (all) => {
      find(all, "Deployment", "worker").spec.replicas = 2;
    },
    /replicas undo a scaling/,
  ],
  [
    "a port that no container has",
    (all) => {
      find(all, "Service", "master").spec.ports[0].targetPort = 50052;
    },
    /Service master: no pod of it has port 50052/,
  ],
  [
    "a probe at another port",
    (all) => {
      containerOf(all, "StatefulSet", "master").readinessProbe.grpc.port = 50052;
    },
    /readinessProbe: the container has no port 50052/,
  ],
  [
    "an Ingress to nowhere",
    (all) => {
      find(all, "Ingress", "proxy").spec.rules[0].http.paths[0].backend.service.name = "web";
    },
    /Ingress proxy: there is no such service port/,
  ],
  [
    "root",
    (all) => {
      find(all, "Deployment", "worker").spec.template.spec.securityContext.runAsNonRoot = false;
    },
    /worker: it may run as root/,
  ],
  [
    "a capability",
    (all) => {
      const { securityContext } = containerOf(all, "Deployment", "worker");
      securityContext.capabilities.add = ["SYS_ADMIN"];
    },
    /it adds capabilities/,
  ],
  [
    "a volume of the host",
    (all) => {
      const { volumes } = find(all, "Deployment", "worker").spec.template.spec;
      volumes[0] = { name: "scratch", hostPath: { path: "/tmp" } };
    },
    /of a kind that "restricted" refuses/,
  ],
  [
    "a token",
    (all) =>
      delete find(all, "Deployment", "worker").spec.template.spec.automountServiceAccountToken,
    /worker: a token is mounted/,
  ],
  [
    "a mount without a volume",
    (all) => {
      containerOf(all, "Deployment", "worker").volumeMounts[0].name = "scratsh";
    },
    /there is no volume scratsh/,
  ],
  [
    "no version of an image",
    (all) => {
      containerOf(all, "StatefulSet", "master").image = "mr-master";
    },
    /mr-master has no fixed version/,
  ],
  [
    "another namespace",
    (all) => {
      find(all, "Service", "etcd").metadata.namespace = "default";
    },
    /Service etcd: not in namespace mr/,
  ],
  [
    "a namespace that enforces nothing",
    (all) => {
      find(all, "Namespace", "mr").metadata.labels = {};
    },
    /does not enforce "restricted"/,
  ],
  [
    "a policy for nobody",
    (all) => {
      find(all, "NetworkPolicy", "worker").spec.egress[0].to[0].podSelector.matchLabels.app =
        "mastr";
    },
    /NetworkPolicy worker: nothing has \{"app":"mastr"\}/,
  ],
  [
    "a runner with secrets",
    (all) => {
      runnerOf(all).envFrom = [{ secretRef: { name: "blob" } }];
    },
    /its runner has an environment/,
  ],
  [
    "a runner that is the worker's user",
    (all) => {
      runnerOf(all).securityContext.runAsUser = 10001;
    },
    /its runner is the worker's user/,
  ],
  ["a runner that is open", (all) => runnerOf(all).args.pop(), /its runner is not closed/],
  [
    "a runner that can write where the worker reads",
    (all) => delete runnerOf(all).volumeMounts[0].readOnly,
    /its runner can write to layouts/,
  ],
  [
    "a runner with the worker's scratch folder",
    (all) => runnerOf(all).volumeMounts.push({ name: "scratch", mountPath: "/scratch" }),
    /its runner can write to scratch/,
  ],
  [
    "one process namespace",
    (all) => {
      find(all, "Deployment", "worker").spec.template.spec.shareProcessNamespace = true;
    },
    /see each other's processes/,
  ],
  [
    "no runner",
    (all) => find(all, "Deployment", "worker").spec.template.spec.containers.pop(),
    /scripts run in the worker's own container/,
  ],
  [
    "a runner that has an identity",
    (all) => {
      const { metadata } = find(all, "Deployment", "worker").spec.template;
      metadata.labels["azure.workload.identity/use"] = "true";
    },
    /its runner is given the identity/,
  ],
  [
    "nothing that denies",
    (all) => all.splice(all.indexOf(find(all, "NetworkPolicy", "default-deny")), 1),
    /no NetworkPolicy denies by default/,
  ],
  [
    "a grace that a process is not left",
    (all) => {
      find(all, "Deployment", "proxy").spec.template.spec.terminationGracePeriodSeconds = 30;
    },
    /proxy: it is killed in its grace/,
  ],
  [
    "a short grace",
    (all) => {
      find(all, "StatefulSet", "master").spec.template.spec.terminationGracePeriodSeconds = 5;
    },
    /master: its grace is short/,
  ],
  [
    "a missing field",
    (all) => delete find(all, "Deployment", "worker").spec.selector,
    /spec\.selector: the field is missing/,
  ],
  [
    "a list that is none",
    (all) => {
      containerOf(all, "StatefulSet", "etcd").command = "etcd --name=x";
    },
    /command: a list is expected/,
  ],
];
