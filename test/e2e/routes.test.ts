import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type Router from "@koa/router";
import { Client, type JobJson } from "../../cmd/mr/client.ts";
import { createApp } from "../../internal/http/app.ts";
import { type Route, Routes } from "../../internal/http/routes.ts";
import { noTokens } from "../../internal/http/token_file.ts";
import { putText, runJob, type TestCluster, useCluster } from "../support/cluster.ts";
import { scratchFolder } from "../support/processes.ts";

/** The routes of the proxy; nothing behind them is asked. */
function allRoutes(): readonly Route[] {
  const nobody = {} as never;
  return createApp({
    jobs: nobody,
    locator: nobody,
    store: nobody,
    logger: nobody,
    authenticate: noTokens,
    origin: { hosts: [], asksForTokens: true },
    ready: () => true,
  }).routes;
}

const PLACES: Record<string, string> = {
  alice: "alice-*,dfs-scripts/alice,dfs-dest/alice",
  bob: "bob-*,dfs-scripts/bob,dfs-dest/bob",
  reader: "r:alice-data",
  writer: "w:alice-data",
  nobody: "some-other",
  operator: "*",
  almost: "r:*",
};
type Status = number | ((status: number) => boolean);
const answered: Status = (status) => status !== 401 && status !== 403 && status < 500;

/** What each kind of token is answered by each kind of route, of what is alice's. */
const EXPECTED: Record<string, Record<keyof typeof PLACES, Status>> = {
  open: all(200),
  known: all(answered),
  operator: { ...all(403), operator: answered },
  job: { ...all(404), alice: answered, operator: answered },
  "own job": { ...all(404), alice: answered, operator: answered },
  "read result": { ...all(404), alice: answered, operator: answered },
  "read blob": {
    ...all(403),
    alice: answered,
    reader: answered,
    operator: answered,
    almost: answered,
  },
  "write blob": { ...all(403), alice: answered, writer: answered, operator: answered },
  "read container": {
    ...all(403),
    alice: answered,
    reader: answered,
    operator: answered,
    almost: answered,
  },
  "write container": { ...all(403), alice: answered, writer: answered, operator: answered },
};

function all(status: Status): Record<string, Status> {
  return Object.fromEntries(Object.keys(PLACES).map((name) => [name, status]));
}

describe("every route of the proxy", () => {
  const routes = allRoutes();
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  let cluster: TestCluster;
  let job: JobJson;

  before(async () => {
    folder = await scratchFolder("tokens");
    const lines = Object.entries(PLACES).map(([name, places]) => {
      const hash = createHash("sha256").update(`${name}-secret`).digest("hex");
      return `${name} sha256:${hash} ${places}\n`;
    });
    const file = join(folder.path, "tokens");
    await writeFile(file, lines.join(""));
    cluster = await useCluster({ workers: 1, env: { MR_TOKENS: file } });
    const alice = new Client(cluster.url, "alice-secret");
    await putText(alice, "alice-data", "text", "b\na\n");
    const request = {
      mapper: "/bin/cat",
      data: "alice-data",
      r_num: 0,
      output: "dfs-dest/alice/1",
    };
    job = await runJob(alice, request);
    assert.equal(job.state, "succeeded");
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  async function ask({ method, path }: Route, token: string | undefined): Promise<number> {
    const place = path
      .replace(":id", job.id)
      .replace(":task", "m-00000")
      .replace(":attempt", "1-1")
      .replace(":container", "alice-data")
      .replace("{*name}", "text");
    const response = await fetch(`${cluster.url}${place}`, {
      method,
      ...(method === "PUT" && { body: "b\na\n" }),
      ...(token !== undefined && { headers: { authorization: `Bearer ${token}` } }),
    });
    await response.body?.cancel();
    return response.status;
  }

  it("says who may use it", () => {
    assert.ok(routes.length >= 20, `${routes.length} routes`);
    for (const { authorisation, method, path } of routes)
      assert.ok(Object.hasOwn(EXPECTED, authorisation), `${method} ${path}: ${authorisation}`);
    const added = new Routes({ register: () => undefined } as unknown as Router);
    // @ts-expect-error: it does not compile either
    assert.throws(() => added.add("GET", "/all", undefined, () => undefined));
  });

  it("answers each kind of token as it says", async () => {
    for (const route of routes) {
      const isOpen = route.authorisation === "open";
      for (const token of [undefined, "unknown"])
        assert.equal(await ask(route, token), isOpen ? 200 : 401, `${route.path} without`);
      for (const [name, expected] of Object.entries(EXPECTED[route.authorisation] ?? {})) {
        const status = await ask(route, `${name}-secret`);
        const ok = typeof expected === "number" ? status === expected : expected(status);
        const { method, path, authorisation } = route;
        assert.ok(ok, `${name}: ${method} ${path} (${authorisation}) is answered ${status}`);
      }
    }
  });
});
