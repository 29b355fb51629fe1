import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { kustomized, type Manifest, parseManifests, singleFiles } from "../../deploy/render.ts";
import { kustomizedFrom } from "../support/kustomization.ts";
import { scratchFolder } from "../support/processes.ts";
import { clusterFaults } from "./cluster_check.ts";
import { find, type Loose, MISTAKES } from "./mistakes.ts";
import { typeFaults } from "./typed_check.ts";

const DEPLOY = join(import.meta.dirname, "..", "..", "deploy");

function faultsOf(manifests: Manifest[]): string[] {
  const faults = manifests.flatMap(typeFaults);
  // What is of the wrong form cannot be asked for more.
  return faults.length > 0 ? faults : clusterFaults(manifests);
}

const OVERLAYS = readdirSync(join(DEPLOY, "overlays")).map((name) => `overlays/${name}`);

describe("the manifests", () => {
  let base: Manifest[];
  before(() => {
    base = kustomized("base");
  });

  it("are what a cluster of today takes, and fit each other: the base", () => {
    assert.deepEqual(faultsOf(base), []);
    assert.ok(base.length > 20, `${base.length} objects`);
  });

  for (const overlay of OVERLAYS)
    it(`are so with ${overlay}, too`, () => {
      const manifests = kustomized(overlay);
      assert.deepEqual(faultsOf(manifests), []);
      assert.ok(manifests.length > 20);
    });

  it("name no secret where the account is reached by an identity", () => {
    const manifests = kustomized("overlays/azure");
    assert.doesNotMatch(JSON.stringify(manifests), /secretRef|secretKeyRef|AccountKey|CONNECTION/);
    for (const name of ["master", "worker", "proxy"]) {
      const { annotations } = find(manifests, "ServiceAccount", name).metadata;
      assert.ok("azure.workload.identity/client-id" in annotations, name);
      const kind = name === "master" ? "StatefulSet" : "Deployment";
      const { labels } = find(manifests, kind, name).spec.template.metadata;
      assert.equal(labels["azure.workload.identity/use"], "true");
    }
  });

  it("are so with tokens and certificates", async () => {
    await using folder = await scratchFolder("kustomize");
    const components = ["components/tokens", "components/tls"];
    const manifests = kustomizedFrom(folder.path, "overlays/local-azurite", components);
    const secrets = ["tokens", "tls-master", "tls-worker", "tls-proxy"];
    assert.deepEqual(faultsOf(manifests), []);
    const mounted = manifests.flatMap((each: Loose) =>
      (each.spec?.template?.spec?.volumes ?? []).flatMap((v: Loose) => v.secret?.secretName ?? []),
    );
    assert.deepEqual(mounted.toSorted(), secrets.toSorted());
  });

  for (const [what, plant, fault] of MISTAKES)
    it(`are refused with ${what}`, () => {
      const planted = structuredClone(base);
      plant(planted);
      const faults = faultsOf(planted);
      assert.ok(
        faults.some((each) => fault.test(each)),
        `not noticed; said was: ${faults.join("; ") || "nothing"}`,
      );
    });

  it("say the same as single files, for those without Kustomize", () => {
    for (const [path, manifests] of singleFiles()) {
      const rendered = parseManifests(readFileSync(join(DEPLOY, path), "utf8"));
      assert.deepEqual(rendered, manifests, `${path} is out of date: npm run render`);
    }
    const all = [...singleFiles().values()]
      .flat()
      .map(({ kind, metadata }) => [kind, metadata.name]);
    const left = base
      .map(({ kind, metadata }) => [kind, metadata.name])
      .filter((each) => !all.some((other) => other.join() === each.join()));
    assert.deepEqual(left, [
      ["Namespace", "mr"],
      ["NetworkPolicy", "default-deny"],
    ]);
  });
});
