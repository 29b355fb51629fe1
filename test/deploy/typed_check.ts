import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import * as models from "@kubernetes/client-node";
import type { Manifest } from "../../deploy/render.ts";

/*
 * Holds objects against the models that are generated from Kubernetes' own OpenAPI: unknown
 * fields, wrong types, missing fields, API versions that are no more.
 */
interface Attribute {
  baseName: string;
  type: string;
}

/** What a cluster of today serves, as far as we use it. The models do not tell of groups. */
export const KINDS: Record<string, string[]> = {
  v1: ["ConfigMap", "Namespace", "Secret", "Service", "ServiceAccount"],
  "apps/v1": ["Deployment", "StatefulSet"],
  "networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
  "policy/v1": ["PodDisruptionBudget"],
};
/** From custom resource definitions: not Kubernetes' own, not in its models. */
const CUSTOM = new Set(["keda.sh/v1alpha1"]);

const MODELS = join(
  dirname(createRequire(import.meta.url).resolve("@kubernetes/client-node")),
  "gen",
  "models",
);

/** Every fault, each with the path of its field. */
export function typeFaults(manifest: Manifest): string[] {
  const { apiVersion, kind, metadata } = manifest;
  const at = `${kind} ${metadata?.name}`;
  if (CUSTOM.has(apiVersion)) return [];
  const kinds = KINDS[apiVersion];
  if (kinds === undefined) return [`${at}: there is no API version ${apiVersion}`];
  if (!kinds.includes(kind)) return [`${at}: ${apiVersion} has no ${kind}`];
  return faultsIn(manifest, `V1${kind}`, at);
}

function attributesOf(type: string): Attribute[] | undefined {
  const model = (models as unknown as Record<string, { attributeTypeMap?: Attribute[] }>)[type];
  return model?.attributeTypeMap;
}

function faultsIn(value: unknown, type: string, at: string): string[] {
  const list = /^Array<(.*)>$/.exec(type)?.[1];
  if (list !== undefined) {
    if (!Array.isArray(value)) return [`${at}: a list is expected`];
    return value.flatMap((each, index) => faultsIn(each, list, `${at}[${index}]`));
  }
  const map = /^\{ \[key: string\]: (.*); \}$/.exec(type)?.[1];
  if (map !== undefined) {
    if (!isObject(value)) return [`${at}: a map is expected`];
    return Object.entries(value).flatMap(([key, each]) => faultsIn(each, map, `${at}.${key}`));
  }
  switch (type) {
    case "any":
    case "object":
      return [];
    case "string":
    case "number":
    case "boolean":
      return typeof value === type ? [] : [`${at}: a ${type} is expected, not ${typeof value}`];
    case "Date":
      return typeof value === "string" && !Number.isNaN(Date.parse(value))
        ? []
        : [`${at}: a time is expected`];
    case "IntOrString":
      return typeof value === "string" || Number.isInteger(value)
        ? []
        : [`${at}: a whole number or a string is expected`];
  }
  return modelFaults(value, type, at);
}

function modelFaults(value: unknown, type: string, at: string): string[] {
  const attributes = attributesOf(type);
  if (attributes === undefined) return [`${at}: the models have no ${type}`];
  if (!isObject(value)) return [`${at}: a ${type} is expected`];
  const faults = requiredOf(type)
    .filter((name) => value[name] === undefined)
    .map((name) => `${at}.${name}: the field is missing`);
  for (const [name, each] of Object.entries(value)) {
    const known = attributes.find(({ baseName }) => baseName === name);
    if (known === undefined) faults.push(`${at}.${name}: unknown field`);
    else faults.push(...faultsIn(each, known.type, `${at}.${name}`));
  }
  return faults;
}

const required = new Map<string, string[]>();

/** The models say which fields may be missing in their types only. */
function requiredOf(type: string): string[] {
  let names = required.get(type);
  if (names === undefined) {
    const text = readFileSync(join(MODELS, `${type}.d.ts`), "utf8");
    names = [...text.matchAll(/^ {4}'(\w+)': /gm)].map(([, name]) => name ?? "");
    required.set(type, names);
  }
  return names;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
