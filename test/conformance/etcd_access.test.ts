import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { Etcd3 } from "etcd3";
import { EtcdCoordinator } from "../../internal/coordination/etcd/etcd_coordinator.ts";
import type { Certificates, Pem } from "../../internal/model/certificates.ts";
import type { LeaderInfo } from "../../internal/model/coordinator.ts";
import { MrError } from "../../internal/model/errors.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { useEtcd } from "../support/servers.ts";

const run = promisify(execFile);
const SCRIPT = join(import.meta.dirname, "..", "..", "deploy", "tls", "make-certificates.sh");
const SELF: LeaderInfo = { id: "self", address: "127.0.0.1:1", pid: 1 };
const NEVER = new AbortController().signal;

function isUnavailable(error: unknown): false {
  assert.ok(MrError.is(error, "unavailable"), String(error));
  return false;
}

/** Certificates that a test may change. */
class Changing implements Certificates {
  private pem: Pem;
  private readonly listeners: (() => void)[] = [];

  constructor(pem: Pem) {
    this.pem = pem;
  }

  current(): Pem {
    return this.pem;
  }

  onChange(changed: () => void): void {
    this.listeners.push(changed);
  }

  change(pem: Pem): void {
    this.pem = pem;
    for (const changed of this.listeners) changed();
  }
}

describe("an etcd that asks who it is", () => {
  it("gives a user of one prefix what a cluster needs, and nothing beside it", async () => {
    await using etcd = await useEtcd();
    const root = new Etcd3({ hosts: etcd.address });
    const role = await root.role("mr").create();
    await role.grant({ permission: "Readwrite", range: root.range({ prefix: "mr/" }) });
    const user = await root.user("mr").create("a password");
    await user.addRole("mr");
    await (await root.user("root").create("root's own")).addRole("root");
    await root.auth.authEnable();
    root.close();

    const options = { address: etcd.address, user: "mr", password: "a password", ttlMs: 20_000 };
    const coordinator = new EtcdCoordinator({ ...options, prefix: "mr/" });
    const term = await coordinator.campaign(SELF, NEVER);
    await term.commit([{ key: "job/1/spec", value: "kept" }]);
    const records = await Array.fromAsync(coordinator.list("job/"));
    assert.deepEqual(records, [{ key: "job/1/spec", value: "kept" }]);
    assert.equal((await coordinator.leader())?.id, "self");

    for (const wrong of [
      { prefix: "other/" },
      { password: "wrong" },
      { password: undefined },
      { user: "nobody" },
    ]) {
      const stranger = new EtcdCoordinator({ prefix: "mr/", ...options, ...wrong });
      await assert.rejects(stranger.leader(), `${JSON.stringify(wrong)} was let in`);
      await stranger.close();
    }
    // Who is logged in, etcd keeps in memory only: it is told again.
    await etcd.restart();
    const writes = [{ key: "job/1/spec", value: "after" }];
    await until("a commit", () => term.commit(writes).then(() => true, isUnavailable));
    await term.resign();
    await coordinator.close();
  });

  it("by certificates meets those of its authority only, also after they were renewed", async () => {
    await using folder = await scratchFolder("etcd-tls");
    const [own, foreign] = [join(folder.path, "own"), join(folder.path, "foreign")];
    for (const each of [own, foreign]) await run(SCRIPT, [each]);
    const file = (from: string, name: string) => readFileSync(join(from, name));
    const pemOf = (from: string, name: string): Pem => ({
      ca: file(own, "ca.crt"),
      cert: file(from, `${name}.crt`),
      key: file(from, `${name}.key`),
    });
    const paths = ["mr-etcd.crt", "mr-etcd.key", "ca.crt"].map((name) => join(own, name));
    await using etcd = await useEtcd(
      [
        ...["--cert-file", paths[0] ?? "", "--key-file", paths[1] ?? ""],
        ...["--trusted-ca-file", paths[2] ?? "", "--client-cert-auth"],
      ],
      "https",
    );
    const open = (certificates: Certificates | undefined) =>
      new EtcdCoordinator({ address: etcd.address, certificates, ttlMs: 2_000 });

    for (const refused of [
      undefined,
      new Changing({ ca: file(own, "ca.crt") }),
      new Changing(pemOf(foreign, "mr-master")),
      new Changing({ ...pemOf(own, "mr-master"), ca: file(foreign, "ca.crt") }),
    ]) {
      const stranger = open(refused);
      await assert.rejects(stranger.leader());
      await stranger.close();
    }

    const certificates = new Changing(pemOf(own, "mr-master"));
    const coordinator = open(certificates);
    const first = await coordinator.campaign(SELF, NEVER);
    await first.commit([{ key: "job/1/spec", value: "before" }]);
    await run(SCRIPT, [own]);
    certificates.change(pemOf(own, "mr-master"));
    // The term goes on where it began; all else speaks with the new ones.
    await first.commit([{ key: "job/1/spec", value: "after" }]);
    const records = await Array.fromAsync(coordinator.list("job/"));
    assert.deepEqual(records, [{ key: "job/1/spec", value: "after" }]);
    await first.resign();
    const second = await coordinator.campaign(SELF, NEVER);
    assert.ok(second.epoch > first.epoch);
    await second.commit([{ key: "job/1/spec", value: undefined }]);
    await until("nothing left", async () => {
      return (await Array.fromAsync(coordinator.list("job/"))).length === 0;
    });
    await second.resign();
    await coordinator.close();
  });
});
