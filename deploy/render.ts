/**
 * `npm run render`: writes what is made from something else, so that nobody has to keep two files
 * alike: the Dockerfiles, from one; a file of manifests for each part of the base.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments, stringify } from "yaml";

const HERE = import.meta.dirname;

const ROLES: Record<string, { port: number; more: string }> = {
  master: { port: 50_051, more: "" },
  proxy: { port: 8_080, more: "ENV HTTP_HOST=0.0.0.0\n" },
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

/** Whoever has no Kustomize applies these three, in this order. Path below this folder -> objects. */
export function singleFiles(): Map<string, Manifest[]> {
  const files = new Map<string, Manifest[]>([
    ["k8s-master.yaml", []],
    ["k8s-worker.yaml", []],
    ["k8s-ingress.yaml", []],
  ]);
  const fileOf: Record<string, string> = { worker: "k8s-worker.yaml", proxy: "k8s-ingress.yaml" };
  for (const manifest of kustomized("base"))
    files.get(fileOf[manifest.metadata.name] ?? "k8s-master.yaml")?.push(manifest);
  return files;
}

if (import.meta.main) {
  const texts = dockerfiles();
  const note = "# Rendered by `npm run render` from deploy/base: edit that.\n";
  for (const [path, manifests] of singleFiles())
    texts.set(path, note + manifests.map((each) => stringify(each)).join("---\n"));
  for (const [path, text] of texts) {
    writeFileSync(join(HERE, path), text);
    process.stdout.write(`${path}\n`);
  }
}
