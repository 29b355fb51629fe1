import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { BlobServiceClient } from "@azure/storage-blob";
import type { JobJson } from "../../cmd/mr/client.ts";
import { messageOf } from "../../internal/model/errors.ts";
import { putText } from "../support/cluster.ts";
import { type FaultyCluster, useFaultyCluster } from "../support/faulty_cluster.ts";

/** Far less than the time in which an outage is borne with. */
const SOON_MS = 20_000;

const isContainer = ({ url = "" }: IncomingMessage) => url.includes("restype=container");
const isRead = (req: IncomingMessage) => req.method === "GET" && !isContainer(req);
const isWrite = (req: IncomingMessage) => req.method === "PUT" && !isContainer(req);

/** What is refused for good, by which answer, and what its job says. */
const REFUSALS: Record<
  string,
  { of: (req: IncomingMessage) => boolean; status: number; code: string; says: RegExp }
> = {
  "an input that is archived": {
    of: (req) => isRead(req) && /\/texts\/a\.txt/.test(req.url ?? ""),
    status: 409,
    code: "BlobArchived",
    says: /texts\/a\.txt: it is archived: rehydrate it first/,
  },
  "an input that may not be read": {
    of: (req) => isRead(req) && /\/texts\/a\.txt/.test(req.url ?? ""),
    status: 403,
    code: "AuthorizationPermissionMismatch",
    says: /texts\/a\.txt: .*has no right to it/,
  },
  "a container that may not be listed": {
    of: (req) => req.method === "GET" && /\/texts\?.*comp=list/.test(req.url ?? ""),
    status: 403,
    code: "AuthorizationFailure",
    says: /texts: .*has no right to it/,
  },
  "results that cannot be encrypted": {
    of: (req) => isWrite(req) && /\/dfs-dest\//.test(req.url ?? ""),
    status: 403,
    code: "KeyVaultEncryptionKeyNotFound",
    says: /dfs-dest\/.*key vault/,
  },
  "map outputs that cannot be written": {
    of: (req) => isWrite(req) && /\/dfs-intermediate\//.test(req.url ?? ""),
    status: 409,
    code: "OperationNotAllowedInCurrentState",
    says: /dfs-intermediate\/.*is it full/,
  },
};

describe("a job to which storage refuses something for good", () => {
  let cluster: FaultyCluster;
  before(async () => {
    cluster = await useFaultyCluster({ workers: 3, remote: true });
    await putText(cluster.client, "texts", "a.txt", "b\na\n");
  });
  after(() => cluster[Symbol.asyncDispose]());
  afterEach(() => {
    if (cluster.parts.storage !== undefined) cluster.parts.storage.rule = () => undefined;
  });

  const request = { mapper: "cat", reducer: "identity", m_num: 1, r_num: 1 };
  const end = async (more: object): Promise<JobJson> =>
    cluster.ended(await cluster.submit({ ...request, data: "texts", ...more }), SOON_MS);

  for (const [what, { of, status, code, says }] of Object.entries(REFUSALS))
    it(`fails soon, and says what: ${what}`, async () => {
      const { storage } = cluster.parts;
      assert.ok(storage);
      storage.rule = (req) => (of(req) ? { kind: "status", status, code } : undefined);
      // Some of it a request asks for, and is refused itself.
      const said = await end({}).then((job) => {
        assert.equal(job.state, "failed", JSON.stringify(job));
        assert.equal(job.error?.class, "input");
        return job.error?.message ?? "";
      }, messageOf);
      assert.match(said, says);
    });

  it("goes on where containers may not be made, and are there", async () => {
    const { storage } = cluster.parts;
    assert.ok(storage);
    storage.rule = (req) =>
      req.method === "PUT" && isContainer(req)
        ? { kind: "status", status: 403, code: "AuthorizationPermissionMismatch" }
        : undefined;
    assert.equal((await end({})).state, "succeeded");
  });
});

describe("an input under a name that no file could have", () => {
  it("is read", async () => {
    await using cluster = await useFaultyCluster({ workers: 1, remote: true });
    const { azurite } = cluster.parts;
    assert.ok(azurite);
    const service = BlobServiceClient.fromConnectionString(azurite.connectionString);
    const container = service.getContainerClient("odd");
    await container.create();
    for (const name of ["a//b", "dot.", "tab\there", "slash/", "%2e%2e", `long-${"n".repeat(300)}`])
      await container
        .getBlockBlobClient(name)
        .upload(`${name.length}\n`, `${name.length}\n`.length);
    const id = await cluster.submit({ mapper: "cat", reducer: "identity", data: "odd", r_num: 1 });
    const job = await cluster.ended(id);
    assert.equal(job.state, "succeeded", JSON.stringify(job));
    assert.equal(job.map.records, 6);
  });

  it("is refused where it would lead to another", async () => {
    await using cluster = await useFaultyCluster({ workers: 1 });
    await putText(cluster.client, "odd", "a.txt", "a\n");
    await writeFile(join(cluster.dir, "store", "odd", "up\\a.txt"), "b\n");
    const id = await cluster.submit({ mapper: "cat", reducer: "identity", data: "odd", r_num: 1 });
    const job = await cluster.ended(id);
    assert.equal(job.error?.class, "input");
    assert.match(job.error?.message ?? "", /odd\/up\\a\.txt: its \\ would lead to another blob/);
  });
});
