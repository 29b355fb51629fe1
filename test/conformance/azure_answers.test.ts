import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { AccountSASPermissions, BlobServiceClient } from "@azure/storage-blob";
import { MrError } from "../../internal/model/errors.ts";
import { readAll } from "../../internal/model/object_store.ts";
import { AzureStore } from "../../internal/storage/azure/azure_store.ts";
import { FaultyHttp, type HttpFault } from "../support/fault_proxies.ts";
import { freePort } from "../support/processes.ts";
import { type TestServer, useAzurite } from "../support/servers.ts";

async function* body(text: string): AsyncIterable<Uint8Array> {
  yield Buffer.from(text);
}

/** What Azure documents for requests that are refused, and will be refused the next time. */
const FINAL: [status: number, code: string, words: RegExp][] = [
  [409, "BlobArchived", /archived: rehydrate it first/],
  [409, "BlobBeingRehydrated", /not rehydrated yet/],
  [409, "BlobImmutableDueToPolicy", /immutability policy/],
  [409, "BlobImmutableDueToLegalHold", /legal hold/],
  [409, "InvalidBlobType", /page or append blob/],
  [409, "ContainerDisabled", /disabled/],
  [409, "SomethingNewThatConflicts", /\(409\)/],
  [412, "LeaseIdMissing", /holds a lease/],
  [412, "LeaseIdMismatchWithBlobOperation", /holds a lease/],
  [401, "NoAuthenticationInformation", /no right/],
  [403, "AuthenticationFailed", /not accepted/],
  [403, "AuthorizationFailure", /no right/],
  [403, "AuthorizationPermissionMismatch", /no right/],
  [403, "AuthorizationSourceIPMismatch", /no right/],
  [403, "InsufficientAccountPermissions", /no right/],
  [403, "AccountIsDisabled", /account is disabled/],
  [403, "KeyVaultEncryptionKeyNotFound", /key vault/],
  [403, "KeyVaultAccessTokenCannotBeAcquired", /key vault/],
  [400, "InvalidResourceName", /no such name/],
  [400, "SomethingNewThatIsInvalid", /\(400\)/],
];

describe("an answer of Blob's", () => {
  let azurite: TestServer & { connectionString: string };
  let service: BlobServiceClient;
  let gate: FaultyHttp;
  let store: AzureStore;

  before(async () => {
    azurite = await useAzurite();
    service = BlobServiceClient.fromConnectionString(azurite.connectionString);
    const port = new URL(service.url).port;
    gate = await FaultyHttp.open(Number(port));
    const connection = azurite.connectionString.replace(port, String(gate.port));
    store = new AzureStore(connection, { patienceMs: 20_000, idleMs: 300 });
    await store.ensureContainer("box");
    await store.put("box", "in/a", body("hello"));
  });
  after(async () => {
    await gate[Symbol.asyncDispose]();
    await azurite[Symbol.asyncDispose]();
  });
  afterEach(() => {
    gate.rule = () => undefined;
  });

  const everything = (): [string, RegExp, () => Promise<unknown>][] => [
    ["read", /box\/in\/a/, () => readAll(store.read("box", "in/a"))],
    ["head", /box\/in\/a/, () => store.head("box", "in/a")],
    ["put", /box\/in\/a/, () => store.put("box", "in/a", body("x"))],
    ["create", /box\/in\/a/, () => store.create("box", "in/a", Buffer.from("x"))],
    ["delete", /box\/in\/a/, () => store.delete("box", "in/a")],
    ["list", /box/, () => Array.fromAsync(store.list("box"))],
    ["stage", /box\/in\/a/, () => stageAndSeal("in/a")],
    ["containers", /containers/, () => store.containers()],
  ];

  async function stageAndSeal(name: string) {
    const staged = await store.stage("box", name, "job/1");
    await staged.write(Buffer.from("staged"));
    return staged.seal();
  }

  it("that is final ends the request at once, and names the object and what is wrong", async () => {
    const key = /AccountKey=([^;]+)/.exec(azurite.connectionString)?.[1] ?? "";
    for (const [status, code, words] of FINAL) {
      gate.rule = () => ({ kind: "status", status, code });
      for (const [what, place, run] of everything()) {
        const before = gate.requests;
        await assert.rejects(run(), (error: Error) => {
          assert.ok(MrError.is(error, "denied"), `${what}, ${code}: ${error}`);
          assert.equal((error as MrError).retryable, false);
          assert.match(error.message, words);
          assert.match(error.message, place);
          assert.match(error.message, new RegExp(code));
          assert.ok(!error.message.includes(key));
          return true;
        });
        assert.equal(gate.requests - before, 1, `${what}, ${code}`);
      }
    }
  });

  it("that passes is waited for", async () => {
    const passing: [number, string][] = [
      [409, "ContainerBeingDeleted"],
      [409, "AccountBeingCreated"],
      [409, "PendingCopyOperation"],
      [429, "TooManyRequests"],
      [503, "ServerBusy"],
      [500, "OperationTimedOut"],
    ];
    for (const [status, code] of passing)
      for (const [what, , run] of everything().filter(([what]) => /read|put|list/.test(what))) {
        let left = 1;
        gate.rule = () => (left-- > 0 ? { kind: "status", status, code } : undefined);
        await run().catch((error) => assert.fail(`${what}, ${code}: ${error}`));
      }
    await store.put("box", "in/a", body("hello"));
  });

  it("that is no answer says what was asked of whom", async () => {
    const refused = `127.0.0.1:${await freePort()}`;
    const port = new URL(service.url).port;
    const connection = azurite.connectionString.replace(`127.0.0.1:${port}`, refused);
    const nobody = new AzureStore(connection, { patienceMs: 1 });
    await assert.rejects(nobody.head("box", "in/a"), (error: Error) => {
      assert.ok(MrError.is(error, "unavailable"));
      assert.match(error.message, /box\/in\/a/);
      assert.match(error.message, /refused/);
      assert.ok(error.message.includes(refused), error.message);
      return true;
    });
    const hasty = new AzureStore(azurite.connectionString.replace(port, String(gate.port)), {
      patienceMs: 1,
      idleMs: 200,
    });
    gate.rule = () => ({ kind: "stall-body", bytes: 1 });
    await assert.rejects(readAll(hasty.read("box", "in/a")), (error: Error) => {
      assert.ok(MrError.is(error, "unavailable"));
      assert.match(error.message, /reading box\/in\/a at 127\.0\.0\.1:\d+: the response stalled/);
      return true;
    });
  });

  it("to a SAS that has run out says so, without the SAS", async () => {
    const past = new Date(Date.now() - 60_000);
    const signed = service.generateAccountSasUrl(
      past,
      AccountSASPermissions.parse("rwdlac"),
      "sco",
    );
    const connection = `BlobEndpoint=${service.url};SharedAccessSignature=${signed.split("?")[1]}`;
    const late = new AzureStore(connection, { patienceMs: 20_000 });
    for (const run of [() => late.head("box", "in/a"), () => late.put("box", "b", body("x"))])
      await assert.rejects(run(), (error: Error) => {
        assert.ok(MrError.is(error, "denied"), String(error));
        assert.match(error.message, /the SAS has expired/);
        assert.doesNotMatch(error.message, /sig=/);
        return true;
      });
  });

  const denied: HttpFault = {
    kind: "status",
    status: 403,
    code: "AuthorizationPermissionMismatch",
  };
  const making = (req: { method?: string | undefined; url?: string | undefined }) =>
    req.method === "PUT" && (req.url ?? "").includes("restype=container");

  it("that denies making a container is none where the container is there", async () => {
    gate.rule = (req) => (making(req) ? denied : undefined);
    await store.ensureContainer("box");
    await assert.rejects(store.ensureContainer("not-there"), (error) =>
      MrError.is(error, "denied"),
    );
    gate.rule = () => denied;
    await store.ensureContainer("box");
  });

  it("that a container is being deleted is borne with longer than other trouble", async () => {
    const hasty = new AzureStore(
      azurite.connectionString.replace(new URL(service.url).port, String(gate.port)),
      { patienceMs: 1 },
    );
    let left = 4;
    gate.rule = (req) =>
      making(req) && left-- > 0
        ? { kind: "status", status: 409, code: "ContainerBeingDeleted" }
        : undefined;
    await hasty.ensureContainer("again");
    assert.equal(await hasty.containerExists("again"), true);
  });

  it("that there are no such blocks is told apart, and what had landed is known again", async () => {
    const gone = (error: unknown) => {
      assert.ok(MrError.is(error, "corrupt"), String(error));
      assert.match((error as Error).message, /box\/out/);
      return true;
    };
    const noBlocks: typeof gate.rule = ({ url = "" }) =>
      url.includes("comp=blocklist")
        ? { kind: "status", status: 400, code: "InvalidBlockList" }
        : undefined;
    const receipt = await stageAndSeal("out");
    // Azure drops the blocks when a whole object is written over them; Azurite does not.
    await store.put("box", "out", body("another's"));
    gate.rule = noBlocks;
    await assert.rejects(store.publish(receipt), gone);
    assert.equal((await readAll(store.read("box", "out"))).toString(), "another's");
    gate.rule = () => undefined;

    const mine = await stageAndSeal("out");
    await store.publish(mine);
    gate.rule = noBlocks;
    await store.publish(mine);
    gate.rule = () => undefined;
    const late = await stageAndSeal("out");
    await service.deleteContainer("box");
    await assert.rejects(store.publish(late), gone);
    await store.ensureContainer("box");
    await store.put("box", "in/a", body("hello"));
  });
});

describe("names that others gave", () => {
  const ODD = [
    "a//b",
    "/lead",
    "dot.",
    "slash/",
    "deep/...",
    "tab\there",
    "%2e%2e/x",
    "a b+c?d#e",
    "ü/💧",
    "x".repeat(300),
  ];

  it("are listed, looked at and read as they are", async () => {
    await using azurite = await useAzurite();
    const store = new AzureStore(azurite.connectionString);
    const box = BlobServiceClient.fromConnectionString(azurite.connectionString).getContainerClient(
      "box",
    );
    await box.create();
    for (const name of ODD)
      await box.getBlockBlobClient(name).upload(name, Buffer.byteLength(name));
    const listed = await Array.fromAsync(store.list("box"));
    assert.deepEqual(listed.map(({ name }) => name).toSorted(), ODD.toSorted());
    for (const { name, etag, size } of listed) {
      assert.deepEqual(await store.head("box", name), { name, etag, size });
      assert.equal((await readAll(store.read("box", name, { etag }))).toString(), name);
      if (name.endsWith("/"))
        await assert.rejects(store.put("box", name, body("x")), (error) =>
          MrError.is(error, "invalid"),
        );
    }
  });

  it("never lead to another blob", async () => {
    await using azurite = await useAzurite();
    const store = new AzureStore(azurite.connectionString);
    for (const container of ["box", "other"]) {
      await store.ensureContainer(container);
      for (const name of ["b", "a/b", "x/b"]) await store.put(container, name, body("secret"));
    }
    for (const name of [
      "a/./b",
      "a/../b",
      "../other/b",
      "a\\b",
      "./b",
      "..",
      ".",
      "a/..",
      "x/b/../../a/b",
      "",
      "\ud800",
    ]) {
      for (const run of [() => store.head("box", name), () => readAll(store.read("box", name))])
        await assert.rejects(run(), (error: Error) => {
          assert.ok(MrError.is(error, "denied"), `${JSON.stringify(name)}: ${error}`);
          assert.match(error.message, /box\//);
          return true;
        });
    }
  });
});
