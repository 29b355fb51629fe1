import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";

const ROOT = join(import.meta.dirname, "..", "..");
/** What an image may carry to anybody, on the condition that it says so. */
const LICENCES = new Set([
  "MIT",
  "ISC",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "0BSD",
  "BlueOak-1.0.0",
]);

interface Package {
  version?: string;
  integrity?: string;
  dev?: boolean;
  optional?: boolean;
  link?: boolean;
}
interface Bom {
  bomFormat: string;
  components: {
    name: string;
    version: string;
    licenses?: { license?: { id?: string }; expression?: string }[];
  }[];
}

interface Audit {
  metadata?: { vulnerabilities: { total: number } };
  vulnerabilities: Record<string, object>;
  /** Why there is no answer. */
  message?: string;
}

const read = <T>(name: string) => JSON.parse(readFileSync(join(ROOT, name), "utf8")) as T;

describe("what the images are made of", () => {
  it("is named exactly, and known by its hash", () => {
    const { packages } = read<{ packages: Record<string, Package & Record<string, object>> }>(
      "package-lock.json",
    );
    const root = packages[""] ?? {};
    for (const kind of ["dependencies", "devDependencies", "optionalDependencies"])
      for (const [name, version] of Object.entries(root[kind] ?? {}))
        assert.match(String(version), /^(npm:\S+@)?\d+\.\d+\.\d+$/, `${name} is not pinned`);
    for (const [path, { integrity }] of Object.entries(packages))
      if (path !== "") assert.match(integrity ?? "", /^sha512-/, `${path} has no hash`);
  });

  it("has no fault that the registry knows of", async (test) => {
    // It exits with 1 when it finds one.
    const said = await promisify(execFile)("npm", ["audit", "--omit=dev", "--json"], { cwd: ROOT })
      .then(({ stdout }) => stdout)
      .catch(({ stdout }: { stdout: string }) => stdout);
    const { metadata, vulnerabilities, message } = JSON.parse(said) as Audit;
    if (metadata === undefined) return test.skip(`the registry here does not audit: ${message}`);
    assert.equal(metadata.vulnerabilities.total, 0, Object.keys(vulnerabilities).join());
  });

  it("is listed by npm run sbom, and is free to be given away", async () => {
    const { stdout } = await promisify(execFile)("npm", ["run", "-s", "sbom"], {
      cwd: ROOT,
      maxBuffer: 1 << 26,
    });
    const { bomFormat, components } = JSON.parse(stdout) as Bom;
    assert.equal(bomFormat, "CycloneDX");
    const names = new Set(components.map(({ name }) => name));
    const { dependencies } = read<Record<string, Record<string, string>>>("package.json");
    for (const name of Object.keys(dependencies ?? {})) assert.ok(names.has(name), name);
    for (const name of ["azurite", "typescript", "@bufbuild/buf"])
      assert.ok(!names.has(name), `${name} is for development`);
    for (const { name, version, licenses = [] } of components) {
      const ids = licenses.flatMap(({ license, expression = "" }) =>
        license?.id === undefined ? expression.split(/[() ]+|AND|OR/).filter(Boolean) : license.id,
      );
      assert.ok(
        ids.length > 0 && ids.every((id) => LICENCES.has(id)),
        `${name} ${version}: ${ids}`,
      );
    }
  });
});
