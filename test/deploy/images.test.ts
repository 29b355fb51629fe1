import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { validate } from "dockerfile-utils";
import { parse } from "yaml";
import { dockerfiles, kustomized } from "../../deploy/render.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const DEPLOY = join(ROOT, "deploy");

/** What is wrong with a Dockerfile, beyond its grammar. */
function dockerfileFaults(text: string): string[] {
  const faults = validate(text).map(
    ({ message, range }) => `line ${range.start.line + 1}: ${message}`,
  );
  const say = (isWrong: boolean, message: string) => isWrong && faults.push(message);
  const last = text.slice(text.lastIndexOf("\nFROM "));
  say(/^#\s*syntax\s*=/im.test(text), "a syntax line asks for a newer builder");
  say(/^(RUN|COPY) .*<</m.test(text), "a heredoc needs a newer builder");
  say(/^(COPY|ADD) .*--link/m.test(text), "COPY --link needs a newer builder");
  say(/^ADD /m.test(text), "COPY says what it does, ADD does not");
  say(/^RUN --mount/m.test(text), "RUN --mount needs BuildKit");
  say(!/^USER [1-9]\d*(:[1-9]\d*)?$/m.test(last), "the image does not run as a user by number");
  say(!/^ENTRYPOINT \["tini", "--"/m.test(last), "pid 1 is no init");
  say(
    /apt-get install(?!.*--no-install-recommends)/.test(text),
    "more is installed than asked for",
  );
  say(/npm (ci|install)(?!.*--omit=dev)/.test(text), "development dependencies are in the image");
  say(
    /^(ARG|ENV) .*(KEY|SECRET|PASSWORD|TOKEN|CONNECTION)/im.test(text),
    "a secret may be in a layer",
  );
  for (const [, image = ""] of text.matchAll(/^ARG NODE_IMAGE=(.*)$/gm))
    say(!/:\d+-bookworm-slim/.test(image), `${image} is not pinned to a version`);
  return faults;
}

describe("the Dockerfiles", () => {
  it("are what the template makes, and share all but their last stage", () => {
    const shared = new Set<string>();
    for (const [path, text] of dockerfiles()) {
      assert.equal(readFileSync(join(DEPLOY, path), "utf8"), text, `${path}: npm run render`);
      shared.add(text.slice(0, text.lastIndexOf("\nFROM ")));
    }
    assert.equal(shared.size, 1);
  });

  it("are good ones", () => {
    for (const [path, text] of dockerfiles()) assert.deepEqual(dockerfileFaults(text), [], path);
  });

  it("are not, with any of these", () => {
    const [good = ""] = dockerfiles().values();
    const mistakes: [planted: string, fault: RegExp][] = [
      [`# syntax=docker/dockerfile:1\n${good}`, /syntax line/],
      [good.replace("COPY cmd cmd", "COPY --link cmd cmd"), /--link/],
      [good.replace("RUN npm", "RUN <<E\nnpm"), /heredoc/],
      [good.replace("USER 10001:10001", "USER root"), /by number/],
      [good.replace(/^USER .*\n/m, ""), /by number/],
      [good.replace("COPY cmd", "ADD cmd"), /ADD/],
      [good.replace("--omit=dev ", ""), /development/],
      [good.replace("node:24-bookworm-slim", "node:latest"), /pinned/],
      [good.replace("ENV NODE_ENV=production", "ENV BLOB_CONNECTION=x"), /secret/],
      [good.replace("WORKDIR /app", "WORKDR /app"), /WORKDR/],
    ];
    for (const [planted, fault] of mistakes) {
      assert.notEqual(planted, good, String(fault));
      const faults = dockerfileFaults(planted);
      assert.ok(
        faults.some((each) => fault.test(each)),
        `${fault}: ${faults.join("; ")}`,
      );
    }
  });
});

describe("compose.yaml", () => {
  type Service = {
    image: string;
    build?: { dockerfile: string };
    environment?: Record<string, string>;
    depends_on?: string[];
    volumes?: string[];
    command?: string[];
  };
  const compose = parse(readFileSync(join(ROOT, "compose.yaml"), "utf8"), { merge: true }) as {
    services: Record<string, Service>;
    volumes: Record<string, object>;
  };

  it("builds and starts what the manifests do, in the same versions", () => {
    const images = new Set(Object.values(compose.services).map(({ image }) => image));
    const inCluster = kustomized("overlays/local-azurite").flatMap((manifest) => {
      const { template } = (manifest.spec ?? {}) as {
        template?: { spec: { containers: { image: string }[] } };
      };
      return template?.spec.containers.map(({ image }) => image) ?? [];
    });
    assert.deepEqual([...images].toSorted(), [...new Set(inCluster)].toSorted());
    for (const [name, { build }] of Object.entries(compose.services))
      if (build !== undefined) assert.equal(build.dockerfile, `deploy/docker/${name}.Dockerfile`);
  });

  it("names only services and volumes that it has, and gives a worker no way to etcd", () => {
    const { services, volumes } = compose;
    for (const [name, { depends_on = [], volumes: mounts = [] }] of Object.entries(services)) {
      for (const other of depends_on) assert.ok(other in services, `${name} needs ${other}`);
      for (const mount of mounts)
        if (mount.includes(":")) assert.ok((mount.split(":")[0] ?? "") in volumes, mount);
    }
    assert.equal(services.worker?.environment?.ETCD_ADDRESS, "");
    assert.equal(services.proxy?.environment?.ETCD_ADDRESS, "http://etcd:2379");
  });
});
