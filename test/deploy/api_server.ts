import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import type { Manifest } from "../../deploy/render.ts";
import { KINDS } from "./typed_check.ts";

/*
 * As much of a Kubernetes API server as kubectl needs to read files, look up their kinds, and send,
 * find and delete objects: what is stored is what a cluster would have been sent.
 */
const SHORT: Record<string, string[]> = {
  Deployment: ["deploy"],
  Namespace: ["ns"],
  StatefulSet: ["sts"],
};

const pluralOf = (kind: string) =>
  /y$/.test(kind)
    ? kind.toLowerCase().replace(/y$/, "ies")
    : `${kind.toLowerCase()}${/s$/.test(kind) ? "es" : "s"}`;

function resources(groupVersion: string): object {
  return {
    kind: "APIResourceList",
    apiVersion: "v1",
    groupVersion,
    resources: (KINDS[groupVersion] ?? []).map((kind) => ({
      name: pluralOf(kind),
      singularName: kind.toLowerCase(),
      namespaced: kind !== "Namespace",
      kind,
      shortNames: SHORT[kind] ?? [],
      verbs: ["create", "delete", "get", "list", "patch", "update", "watch"],
    })),
  };
}

function groups(): object {
  const groupVersions = Object.keys(KINDS).filter((each) => each.includes("/"));
  return {
    kind: "APIGroupList",
    apiVersion: "v1",
    groups: groupVersions.map((groupVersion) => {
      const [name = "", version = ""] = groupVersion.split("/");
      return {
        name,
        versions: [{ groupVersion, version }],
        preferredVersion: { groupVersion, version },
      };
    }),
  };
}

function discovery(path: string): object | undefined {
  if (path === "/api") return { kind: "APIVersions", versions: ["v1"] };
  if (path === "/apis") return groups();
  const [, groupVersion = ""] = /^\/apis?\/(v1|[^/]+\/[^/]+)$/.exec(path) ?? [];
  return groupVersion in KINDS ? resources(groupVersion) : undefined;
}

export interface ApiServer extends AsyncDisposable {
  url: string;
  /** Path -> what is there, as /apis/apps/v1/namespaces/NAME/deployments/worker. */
  objects: Map<string, Manifest>;
}

export async function apiServer(): Promise<ApiServer> {
  const objects = new Map<string, Manifest>();
  const server = createServer((request, response) => {
    answer(objects, request, response).catch((error: Error) => response.destroy(error));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    objects,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function answer(
  objects: Map<string, Manifest>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = (request.url ?? "").replace(/\?.*/, "");
  const say = (status: number, body: object) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  const found = objects.get(path);
  const known = discovery(path);
  if (request.method === "POST") {
    const sent = (await json(request)) as Manifest;
    objects.set(`${path}/${sent.metadata.name}`, sent);
    return say(201, sent);
  }
  if (known !== undefined) return say(200, known);
  if (found === undefined)
    return say(404, {
      kind: "Status",
      apiVersion: "v1",
      status: "Failure",
      reason: "NotFound",
      code: 404,
    });
  if (request.method === "DELETE") objects.delete(path);
  say(200, found);
}
