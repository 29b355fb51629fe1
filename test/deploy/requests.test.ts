import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { V1Container, V1Deployment } from "@kubernetes/client-node";
import { kustomized, type Manifest } from "../../deploy/render.ts";

const GIB = 1024 ** 3;
const UNITS: Record<string, number> = { Ki: 1024, Mi: 1024 ** 2, Gi: GIB, m: 0.001, "": 1 };

function quantity(text: string | undefined): number {
  const [, number, unit = ""] = /^([\d.]+)(Ki|Mi|Gi|m|)$/.exec(text ?? "") ?? [];
  assert.ok(number !== undefined, `${text} is no quantity`);
  return Number(number) * (UNITS[unit] ?? Number.NaN);
}

const workloads = (manifests: Manifest[]) =>
  manifests.filter(({ kind }) =>
    /^(Deployment|StatefulSet)$/.test(kind),
  ) as unknown as V1Deployment[];
const containersOf = (workload: V1Deployment | undefined): V1Container[] =>
  workload?.spec?.template.spec?.containers ?? [];

/** What a scheduler must find room for. @param workers so many of them. */
function requested(manifests: Manifest[], workers: number): { cpu: number; memory: number } {
  const sum = { cpu: 0, memory: 0 };
  for (const workload of workloads(manifests)) {
    const replicas =
      workload.metadata?.name === "worker" ? workers : (workload.spec?.replicas ?? 1);
    for (const { resources } of containersOf(workload))
      for (const what of ["cpu", "memory"] as const)
        sum[what] += replicas * quantity(resources?.requests?.[what]);
  }
  return sum;
}

const workerOf = (manifests: Manifest[]) =>
  containersOf(workloads(manifests).find(({ metadata }) => metadata?.name === "worker"));

describe("what the pods ask for", () => {
  it("fits a laptop: the cluster with Azurite and two workers", () => {
    const { cpu, memory } = requested(kustomized("overlays/local-azurite"), 2);
    assert.ok(cpu <= 1, `${cpu} processors`);
    assert.ok(memory <= 3 * GIB, `${memory / GIB} GiB`);
  });

  it("fits three small nodes: the base with eight workers", () => {
    const { cpu, memory } = requested(kustomized("base"), 8);
    assert.ok(cpu <= 4, `${cpu} processors`);
    assert.ok(memory <= 8 * GIB, `${memory / GIB} GiB`);
  });

  for (const folder of ["base", "overlays/local-azurite"])
    it(`does not make the slots of a worker: its runner's limit does, ${folder}`, () => {
      const [worker, runner] = workerOf(kustomized(folder));
      const slots = worker?.env?.find(({ name }) => name === "MR_SLOTS")?.valueFrom;
      assert.deepEqual(slots?.resourceFieldRef, {
        containerName: "runner",
        resource: "limits.cpu",
      });
      assert.equal(quantity(runner?.resources?.limits?.cpu), 2);
      const asked = [worker, runner].map((each) => quantity(each?.resources?.requests?.cpu));
      assert.ok(asked.reduce((sum, each) => sum + each) <= 0.3 + 1e-9, `${asked}`);
    });

  it("is never more than the limit", () => {
    for (const folder of ["base", "overlays/local-azurite"])
      for (const { name, resources } of workloads(kustomized(folder)).flatMap(containersOf))
        for (const [what, asked] of Object.entries(resources?.requests ?? {}))
          assert.ok(quantity(asked) <= quantity(resources?.limits?.[what]), `${name}: ${what}`);
  });
});

describe("addresses to listen on", () => {
  it("are of both families, whatever a pod has", () => {
    for (const folder of ["base", "overlays/local-azurite"])
      for (const { name, command, args, env } of workloads(kustomized(folder)).flatMap(
        containersOf,
      )) {
        const said = JSON.stringify([command, args, env]);
        // Go, and so etcd, takes it for every address; Node does not.
        if (name !== "etcd") assert.doesNotMatch(said, /0\.0\.0\.0/, name);
      }
    const policies = kustomized("base").filter(({ metadata }) => metadata.name === "blob");
    const blocks = [...JSON.stringify(policies).matchAll(/"cidr":"([^"]+)"/g)].map(
      ([, each]) => each,
    );
    assert.deepEqual(blocks, ["0.0.0.0/0", "::/0"]);
  });
});
