import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { parseAllDocuments } from "yaml";
import { type Manifest, singleFiles, yamlOf } from "../../deploy/render.ts";
import { scratchFolder } from "../support/processes.ts";
import { type ApiServer, apiServer } from "./api_server.ts";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "..", "..");
const DEPLOY = join(ROOT, "deploy");
const FILES = ["k8s-worker.yaml", "k8s-ingress.yaml", "k8s-master.yaml"];

/** What somebody may write into a label, an annotation or a setting; to one reader or another it is no text. */
const SURPRISES = [
  ..."off On YES no y n N true Null ~ null - = << ? .inf .NaN 0755 0o14 0x1F 0b101 1_000 1:30".split(
    " ",
  ),
  ..."190:20:30 1:30:00.5 2020-01-01 2001-12-14t21:59:43.10-05:00 1e3 1. +1 -0 .5 08 1.5 12 ::".split(
    " ",
  ),
  ...["", " x", "x ", "a: b", "a #b", "#x", "- a", "*a", "&a", "!t", "%d", "@a", "`b", "'", '"'],
  ...[
    "two\nlines",
    "a\ttab",
    "\u0085",
    "\u2028",
    "é",
    "x".repeat(300),
    "0.0.0.0",
    "a,b",
    "{a}",
    "[a]",
  ],
];

function everyYaml(): string[] {
  const below = readdirSync(DEPLOY, { recursive: true, encoding: "utf8" });
  return [...below.filter((name) => /\.ya?ml$/.test(name)).map((name) => join(DEPLOY, name))];
}

const read = (text: string, version: "1.1" | "1.2") =>
  parseAllDocuments(text, { version, merge: version === "1.1" }).map((document) => {
    assert.deepEqual(document.errors, []);
    return document.toJS() as unknown;
  });

const PYTHON =
  "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin)), default=repr))";
const hasPython = spawnSync("python3", ["-c", "import yaml"]).status === 0;

function readByPython(text: string): unknown[] {
  const { status, stdout, stderr } = spawnSync("python3", ["-c", PYTHON], {
    input: text,
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as unknown[];
}

/** kubectl as it is, with a cluster that takes everything. */
async function useKubectl() {
  const folder = await scratchFolder("kubectl");
  const server: ApiServer = await apiServer();
  const options = ["--server", server.url, "--cache-dir", join(folder.path, "cache")];
  return {
    folder: folder.path,
    objects: server.objects,
    kubectl: async (...args: string[]) => {
      const env = { PATH: process.env.PATH, HOME: folder.path, KUBECONFIG: "/dev/null" };
      return (await run("kubectl", [...options, ...args], { env, cwd: ROOT })).stdout;
    },
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

describe("YAML", () => {
  it("says the same to readers of its versions 1.1 and 1.2, in every file", () => {
    const files = everyYaml();
    assert.ok(files.length > 30, `${files.length} files`);
    for (const path of [...files, join(ROOT, "compose.yaml")]) {
      const text = readFileSync(path, "utf8");
      const merged = parseAllDocuments(text, { merge: true }).map((each) => each.toJS() as unknown);
      assert.deepEqual(read(text, "1.1"), merged, path);
      if (hasPython) assert.deepEqual(readByPython(text), merged, path);
    }
  });

  it("that is rendered is so whatever a text looks like, as a key, too", () => {
    const data = Object.fromEntries(SURPRISES.map((text, index) => [`key${index}`, text]));
    const keys = Object.fromEntries(SURPRISES.slice(0, 40).map((text) => [text, "a value"]));
    const value = { data, keys, list: SURPRISES, kept: [1, 1.5, true, false, null] };
    const text = yamlOf(value);
    for (const version of ["1.1", "1.2"] as const) assert.deepEqual(read(text, version), [value]);
    if (hasPython) assert.deepEqual(readByPython(text), [value]);
  });

  it("is read so by kubectl itself", async () => {
    await using cluster = await useKubectl();
    const data = Object.fromEntries(SURPRISES.map((text, index) => [`key${index}`, text]));
    const path = join(cluster.folder, "surprises.yaml");
    writeFileSync(
      path,
      yamlOf({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a" }, data }),
    );
    const create = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", path];
    const made = JSON.parse(await cluster.kubectl(...create)) as { data: object };
    assert.deepEqual(made.data, data);
  });
});

describe("the three files for those without Kustomize", () => {
  it("are taken by kubectl as they are", async () => {
    await using cluster = await useKubectl();
    for (const [file, manifests] of singleFiles()) {
      const create = ["create", "--dry-run=client", "--validate=false", "-o", "name"];
      const names = (await cluster.kubectl(...create, "-f", `deploy/${file}`))
        .trimEnd()
        .split("\n");
      assert.deepEqual(
        names.map((name) => name.replace(/^(\w+)[^/]*/, "$1")),
        manifests.map(({ kind, metadata }) => `${kind.toLowerCase()}/${metadata.name}`),
        file,
      );
    }
  });

  it("go to any namespace, in any order, and away again", async () => {
    const sent: string[][] = [];
    for (const order of [FILES, FILES.toReversed()]) {
      await using cluster = await useKubectl();
      const { kubectl, objects } = cluster;
      for (const file of order)
        await kubectl("apply", "--validate=false", "-f", `deploy/${file}`, "-n", "cloud-sys");
      sent.push([...objects.keys()].toSorted());
      await kubectl("delete", "deploy", "worker", "-n", "cloud-sys");
      await kubectl("delete", "statefulsets", "master", "-n", "cloud-sys");
      await kubectl("delete", "deploy", "proxy", "-n", "cloud-sys");
      const gone = sent.at(-1)?.filter((path) => !objects.has(path)) ?? [];
      assert.deepEqual(
        gone.map((path) => path.split("/").slice(-2).join("/")),
        ["deployments/proxy", "deployments/worker", "statefulsets/master"],
      );
    }
    assert.deepEqual(sent[0], sent[1]);
    assert.equal(sent[0]?.length, [...singleFiles().values()].flat().length);
    for (const path of sent[0] ?? []) assert.match(path, /\/namespaces\/cloud-sys\//);
  });

  it("name no namespace of ours, and ask nothing of pods that are not", () => {
    for (const [file, manifests] of singleFiles()) {
      assert.doesNotMatch(
        JSON.stringify(manifests),
        /"namespace"|\bmr\.svc|"kind":"Namespace"/,
        file,
      );
      for (const { kind, metadata, spec } of manifests as (Manifest & {
        spec: { podSelector: object };
      })[])
        if (kind === "NetworkPolicy")
          assert.notDeepEqual(spec.podSelector, {}, `${metadata.name} is for all pods`);
    }
  });
});
