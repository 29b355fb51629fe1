import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { outputOf, putText, runJob, useCluster } from "../support/cluster.ts";
import { ServerProcess, scratchFolder, until } from "../support/processes.ts";
import { useAzurite } from "../support/servers.ts";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "..", "..");
const SCRIPT = join(ROOT, "deploy", "tls", "make-certificates.sh");
const HEADER = "only those who may ask know this";

/** What Azure gives to a machine that asks who it is: a token for storage. Here, an unsigned one. */
async function useIdentityEndpoint() {
  let asked = 0;
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "", "http://localhost");
    const isGood =
      request.headers["x-identity-header"] === HEADER &&
      url.searchParams.get("resource")?.startsWith("https://storage.azure.com");
    if (!isGood) return void response.writeHead(400).end("{}");
    asked += 1;
    const now = Math.floor(Date.now() / 1_000);
    const tenant = "00000000-0000-0000-0000-000000000000";
    const claims = {
      aud: "https://storage.azure.com",
      iss: `https://sts.windows.net/${tenant}/`,
      iat: now - 60,
      nbf: now - 60,
      exp: now + 86_400,
    };
    const token = `${part({ alg: "RS256", typ: "JWT" })}.${part(claims)}.c2lnbmVk`;
    response.setHeader("content-type", "application/json");
    response.end(
      JSON.stringify({
        access_token: token,
        expires_on: String(claims.exp),
        resource: "https://storage.azure.com",
        token_type: "Bearer",
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}/token`,
    get asked() {
      return asked;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

describe("a storage account that is reached by an identity", () => {
  it("runs a job without any key", async () => {
    await using folder = await scratchFolder("identity");
    await run(SCRIPT, [folder.path]);
    const certificate = (name: string) => join(folder.path, name);
    await using azurite = await useAzurite([
      ...["--oauth", "basic"],
      ...["--cert", certificate("mr-etcd.crt"), "--key", certificate("mr-etcd.key")],
    ]);
    await using identity = await useIdentityEndpoint();
    const env = {
      AZURE_STORAGE_ACCOUNT: azurite.endpoint.replace(/^http:/, "https:"),
      IDENTITY_ENDPOINT: identity.url,
      IDENTITY_HEADER: HEADER,
      NODE_EXTRA_CA_CERTS: certificate("ca.crt"),
    };
    await using cluster = await useCluster({ workers: 1, env });
    const { client } = cluster;
    await putText(client, "text", "a", "b\na\nb\n");
    await putText(
      client,
      "dfs-scripts",
      "mapper.py",
      "import os, sys\nassert not any(n.startswith(('IDENTITY', 'AZURE')) for n in os.environ)\n" +
        "for line in sys.stdin: print(line.strip(), 1, sep='\\t')\n",
    );
    const job = await runJob(client, { mapper: "mapper.py", reducer: "sum", data: "text" });
    assert.equal(job.error, undefined);
    assert.equal(String(await outputOf(client, job.id)), "a\t1\nb\t2\n");
    // The folder that a cluster of this machine would have used is not.
    assert.deepEqual(await readdir(join(cluster.dir, "store")).catch(() => []), []);
    assert.ok(identity.asked >= 3, "proxy, master and worker have asked for themselves");
    for (const log of await readdir(join(cluster.dir, "logs")))
      assert.doesNotMatch(await readFile(join(cluster.dir, "logs", log), "utf8"), /eyJ/);
  });

  it("says that there is none, and what is no account", async () => {
    await using folder = await scratchFolder("identity");
    const start = (account: string) =>
      new ServerProcess(process.execPath, [join(ROOT, "cmd", "proxy", "main.ts")], {
        ...process.env,
        HTTP_PORT: "0",
        MR_SQLITE_FILE: join(folder.path, "db"),
        AZURE_STORAGE_ACCOUNT: account,
      });
    const wrong = start("Not An Account");
    assert.equal(await wrong.exited(), 1);
    const complaint = /AZURE_STORAGE_ACCOUNT: Not An Account is neither a name/;
    await until("its complaint", () => complaint.test(wrong.said));
  });
});
