/**
 * `npm run render`: writes what is made from something else, so that nobody has to keep two files
 * alike: the Dockerfiles, from one; a file of manifests for each part of the base.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Document, parseAllDocuments, visit } from "yaml";

const HERE = import.meta.dirname;

const ROLES: Record<string, { port: number; more: string }> = {
  master: { port: 50_051, more: "" },
  proxy: { port: 8_080, more: "ENV HTTP_HOST=::\n" },
  worker: {
    port: 0,
    more: `# What scripts are written in; venv, for those that bring a requirements.txt. Another user runs them.
RUN apt-get update \\
 && apt-get install -y --no-install-recommends python3 python3-venv \\
 && rm -rf /var/lib/apt/lists/* \\
 && groupadd --gid 10002 script \\
 && useradd --uid 10002 --gid 10002 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin script \\
 && install -d -o mr -g mr /layouts \\
 && install -d -o root -g script -m 1770 /cell
ENV MR_SCRATCH_DIR=/scratch
`,
  },
};

/** Path below this folder -> text. */
export function dockerfiles(): Map<string, string> {
  const template = readFileSync(join(HERE, "docker", "Dockerfile.in"), "utf8");
  const files = Object.entries(ROLES).map(([role, { port, more }]): [string, string] => {
    const text = template
      .replace("{{more}}", more)
      .replace(/^EXPOSE .*\n/m, port === 0 ? "" : `EXPOSE ${port}\n`)
      .replaceAll("{{role}}", role);
    return [`docker/${role}.Dockerfile`, text];
  });
  return new Map(files);
}

export type Manifest = {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
} & Record<string, unknown>;

/** What `kubectl apply -k` would send. @param folder below this one. */
export function kustomized(folder: string): Manifest[] {
  const { status, stdout, stderr, error } = spawnSync(
    "kubectl",
    ["kustomize", join(HERE, folder)],
    {
      encoding: "utf8",
    },
  );
  if (status !== 0) throw new Error(`kubectl kustomize ${folder}: ${error?.message ?? stderr}`);
  return parseManifests(stdout);
}

export function parseManifests(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => {
    if (document.errors[0] !== undefined) throw document.errors[0];
    return document.toJS() as Manifest;
  });
}

/** A text that is one to every reader of YAML, whatever its version: kubectl takes `off` for false. */
const WORD =
  /^(?!(y|n|yes|no|on|off|true|false|null|none|nan|inf|infinity)$)[A-Za-z/$][\w./$()-]*$/i;

/** To readers of 1.1 these end a line. */
const LINE_ENDS = /[\u0085\u2028\u2029]/g;
const escaped = (end: string) => `\\u${end.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** YAML that says the same to readers of 1.1 and 1.2. */
export function yamlOf(value: object): string {
  const document = new Document(value, { aliasDuplicateObjects: false });
  visit(document, {
    Scalar(_, node) {
      if (typeof node.value === "string" && !WORD.test(node.value)) node.type = "QUOTE_DOUBLE";
    },
  });
  return document.toString({ lineWidth: 0 }).replace(LINE_ENDS, escaped);
}

/** Of the whole namespace, which may not be ours alone: whoever applies single files says where. */
function isOfNamespace({ kind, metadata }: Manifest): boolean {
  return kind === "Namespace" || metadata.name === "default-deny";
}

/**
 * Whoever has no Kustomize applies these three, in any order, to any namespace. Path below this
 * folder -> objects.
 */
export function singleFiles(): Map<string, Manifest[]> {
  const files = new Map<string, Manifest[]>([
    ["k8s-master.yaml", []],
    ["k8s-worker.yaml", []],
    ["k8s-ingress.yaml", []],
  ]);
  const fileOf: Record<string, string> = { worker: "k8s-worker.yaml", proxy: "k8s-ingress.yaml" };
  for (const manifest of kustomized("base")) {
    if (isOfNamespace(manifest)) continue;
    const { namespace: _, ...metadata } = manifest.metadata;
    const file = files.get(fileOf[metadata.name] ?? "k8s-master.yaml");
    file?.push({ ...manifest, metadata });
  }
  return files;
}

if (import.meta.main) {
  const texts = dockerfiles();
  const note = "# Rendered by `npm run render` from deploy/base: edit that.\n";
  for (const [path, manifests] of singleFiles())
    texts.set(path, note + manifests.map((each) => yamlOf(each)).join("---\n"));
  for (const [path, text] of texts) {
    writeFileSync(join(HERE, path), text);
    process.stdout.write(`${path}\n`);
  }
}
