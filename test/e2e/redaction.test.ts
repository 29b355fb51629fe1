import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { freePort, ServerProcess, scratchFolder, until } from "../support/processes.ts";
import { useAzurite, useEtcd } from "../support/servers.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const SECRET = "c2VjcmV0LWNhbmFyeS03N2YzYTE=";
const FORMS = [SECRET, encodeURIComponent(SECRET), Buffer.from(SECRET, "base64").toString()];

const start = (role: string, env: Record<string, string>) =>
  new ServerProcess(process.execPath, [join(ROOT, "cmd", role, "main.ts")], {
    PATH: process.env.PATH,
    MR_LOG_LEVEL: "trace",
    ...env,
  });

function assertHidden(what: string, text: string): void {
  for (const form of FORMS) assert.ok(!text.includes(form), `${what}: ${text}`);
}

/** Asks a proxy and its master for all that needs the storage; @returns all that was said. */
async function exercised(
  settings: Record<string, string>,
  token = "",
): Promise<Record<string, string>> {
  await using folder = await scratchFolder("redaction");
  const [rpc, http] = [await freePort(), await freePort()];
  const tokens = join(folder.path, "tokens");
  writeFileSync(tokens, "");
  const env = {
    MR_SQLITE_FILE: join(folder.path, "state.db"),
    MR_STORAGE_PATIENCE_MS: "500",
    MR_PATIENCE_MS: "5000",
    ...settings,
  };
  const parts = {
    master: start("master", { ...env, RPC_PORT: String(rpc) }),
    proxy: start("proxy", {
      ...env,
      HTTP_PORT: String(http),
      ...(token === "" ? {} : { MR_TOKENS: tokens }),
    }),
    worker: start("worker", {
      ...settings,
      MR_STORAGE_PATIENCE_MS: "500",
      RPC_ADDRESS: `127.0.0.1:${rpc}`,
      MR_SCRATCH_DIR: join(folder.path, "scratch"),
    }),
  };
  try {
    await until("the proxy", async () => {
      const answer = await fetch(`http://127.0.0.1:${http}/healthz`).catch(() => undefined);
      return answer?.ok === true || !parts.proxy.running;
    });
    // The proxy may be there, or gone, before a master on a slow machine has come to its first line.
    await until("the master's word", () => {
      const { said, running } = parts.master;
      return said.includes("listening") || (!running && said.endsWith("\n"));
    });
    const said: Record<string, string> = {};
    const ask = async (method: string, path: string, body?: string) => {
      const headers = token === "" ? {} : { authorization: `Bearer ${token}` };
      const init = { method, headers, ...(body === undefined ? {} : { body }) };
      const answer = await fetch(`http://127.0.0.1:${http}${path}`, init).catch(String);
      const text = typeof answer === "string" ? answer : `${answer.status} ${await answer.text()}`;
      said[`${method} ${path}`] = text;
    };
    await ask("GET", "/readyz");
    await ask("PUT", "/storage/books/a.txt", "a line\n");
    await ask("GET", "/storage/books/a.txt");
    await ask("GET", "/storage/books?prefix=");
    await ask("POST", "/request", '{"mapper": "cat", "data": "books", "r_num": 0}');
    await ask("GET", "/jobs");
    for (const part of Object.values(parts)) await part.stop();
    return {
      ...said,
      ...Object.fromEntries(Object.entries(parts).map(([role, { said }]) => [role, said])),
    };
  } finally {
    for (const part of Object.values(parts)) await part.stop();
  }
}

describe("a secret is in no log and no answer", () => {
  it("a wrong key of the storage account", async () => {
    await using azurite = await useAzurite();
    const wrong = azurite.connectionString.replace(/AccountKey=[^;]+/, `AccountKey=${SECRET}`);
    const said = await exercised({ BLOB_CONNECTION: wrong });
    for (const [what, text] of Object.entries(said)) assertHidden(what, text);
    assert.match(said["PUT /storage/books/a.txt"] ?? "", /^[45]\d\d .*\S/s);
    assert.match(said.master ?? "", /listening/);
  });

  it("a signature that lets nobody in", async () => {
    await using azurite = await useAzurite();
    const signature = `sv=2024-11-04&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00:00:00Z&sig=${encodeURIComponent(SECRET)}`;
    const connection = `BlobEndpoint=${azurite.endpoint};SharedAccessSignature=${signature}`;
    const said = await exercised({ BLOB_CONNECTION: connection });
    for (const [what, text] of Object.entries(said)) assertHidden(what, text);
    assert.match(said["PUT /storage/books/a.txt"] ?? "", /^[45]\d\d .*\S/s);
  });

  it("a storage that is not there, and a string that is none", async () => {
    const port = await freePort();
    const away = `DefaultEndpointsProtocol=http;AccountName=a;AccountKey=${SECRET};BlobEndpoint=http://127.0.0.1:${port}/a;`;
    for (const connection of [away, `nonsense;AccountKey=${SECRET}`, `AccountKey=${SECRET}`]) {
      const said = await exercised({ BLOB_CONNECTION: connection });
      for (const [what, text] of Object.entries(said)) assertHidden(what, text);
      assert.ok((said.master ?? "").length > 20, said.master);
    }
  });

  it("a token that is not known", async () => {
    await using folder = await scratchFolder("store");
    const said = await exercised({ MR_STORE_DIR: folder.path }, SECRET);
    for (const [what, text] of Object.entries(said)) assertHidden(what, text);
    assert.match(said["GET /jobs"] ?? "", /^401 /);
  });

  it("one that was put where it does not belong", async () => {
    await using folder = await scratchFolder("store");
    const master = start("master", {
      MR_STORE_DIR: folder.path,
      MR_SQLITE_FILE: join(folder.path, "state.db"),
      RPC_PORT: "0",
      RPC_ADDRESS: `host-${SECRET}:1`,
      ETCD_ROOT_PASSWORD: SECRET,
    });
    await until("its address", () => /host-\[hidden\]:1/.test(master.said) || !master.running);
    await master.stop();
    assert.match(master.said, /host-\[hidden\]:1/);
    assertHidden("the log", master.said);
  });

  it("a password of etcd", async () => {
    await using etcd = await useEtcd();
    await using folder = await scratchFolder("store");
    const said = await exercised({
      MR_STORE_DIR: folder.path,
      MR_SQLITE_FILE: "",
      ETCD_ADDRESS: etcd.address,
      ETCD_ROOT_PASSWORD: SECRET,
    });
    for (const [what, text] of Object.entries(said)) assertHidden(what, text);
    assert.ok((said.master ?? "").length > 20, said.master);
  });
});
