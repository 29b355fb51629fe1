import { realpathSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { kustomized, type Manifest } from "../../deploy/render.ts";

const DEPLOY = join(import.meta.dirname, "..", "..", "deploy");

/**
 * What a user's own kustomization gives that builds on ours.
 * @param folder where it is written.
 * @param resource a folder below `deploy`, as are the components.
 */
export function kustomizedFrom(folder: string, resource: string, components: string[]): Manifest[] {
  // Kustomize takes relative paths only, wherever this clone and the folder are.
  const scratch = realpathSync(folder);
  const from = (name: string) => relative(scratch, realpathSync(join(DEPLOY, name)));
  const kustomization = {
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: [from(resource)],
    components: components.map(from),
  };
  writeFileSync(join(scratch, "kustomization.yaml"), JSON.stringify(kustomization));
  return kustomized(relative(DEPLOY, scratch));
}
