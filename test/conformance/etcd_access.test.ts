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
import type { Logger } from "../../internal/model/logger.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { useEtcd } from "../support/servers.ts";

const run = promisify(execFile);
const SCRIPT = join(import.meta.dirname, "..", "..", "deploy", "tls", "make-certificates.sh");
const SELF: LeaderInfo = { id: "self", address: "127.0.0.1:1", pid: 1 };
const PASSWORD = "a word of mr";
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

/** A user `mr` of the keys under `mr/`, beside root. */
async function askForPasswords(address: string): Promise<void> {
  const root = new Etcd3({ hosts: address });
  const role = await root.role("mr").create();
  await role.grant({ permission: "Readwrite", range: root.range({ prefix: "mr/" }) });
  const user = await root.user("mr").create(PASSWORD);
  await user.addRole("mr");
  await (await root.user("root").create("root's own")).addRole("root");
  await root.auth.authEnable();
  root.close();
}

/** How many logins etcd was asked for. */
async function logins(address: string): Promise<number> {
  const text = await (await fetch(`${address}/metrics`)).text();
  const [, count] =
    /grpc_server_started_total\{grpc_method="Authenticate".*\} (\d+)/.exec(text) ?? [];
  return Number(count ?? 0);
}

/** Keeps what is logged, a line each. */
function listener(): { logger: Logger; lines: string[] } {
  const lines: string[] = [];
  const hear = (fields: object, message: string) => {
    lines.push(`${message} ${JSON.stringify(fields)}`);
  };
  return { logger: { debug: hear, info: hear, warn: hear, error: hear }, lines };
}

describe("an etcd that asks who it is", () => {
  it("gives a user of one prefix what a cluster needs, and nothing beside it", async () => {
    await using etcd = await useEtcd();
    await askForPasswords(etcd.address);
    const options = { address: etcd.address, user: "mr", password: PASSWORD, ttlMs: 20_000 };
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

  it("says what is wrong with a login, to who asks and to who campaigns, without the password", async () => {
    await using etcd = await useEtcd();
    await askForPasswords(etcd.address);
    const right = { address: etcd.address, user: "mr", password: PASSWORD, prefix: "mr/" };
    for (const [wrong, words] of [
      [{ password: "zzqq" }, /etcd refuses user mr: wrong name or password \(MR_ETCD_USER/],
      [{ user: "nobody" }, /etcd refuses user nobody: wrong name or password/],
      [{ password: undefined }, /asks for a user and a password \(MR_ETCD_USER, ETCD_ROOT_PASS/],
      [{ prefix: "other/" }, /user mr may not read and write the keys under other\/ .*PREFIX/],
    ] as const) {
      const { logger, lines } = listener();
      const stranger = new EtcdCoordinator({ ...right, ...wrong, ttlMs: 2_000, logger });
      const before = await logins(etcd.address);
      const stop = new AbortController();
      const campaign = stranger.campaign(SELF, stop.signal);
      await until("word of why there is no election", () => lines.some((line) => words.test(line)));
      for (let i = 0; i < 20; i += 1)
        await assert.rejects(stranger.leader(), (error: Error) => {
          assert.ok(MrError.is(error, "unavailable"));
          assert.match(error.message, words);
          return true;
        });
      stop.abort();
      await assert.rejects(campaign, (error) => MrError.is(error, "aborted"));
      assert.equal(lines.length, 1, lines.join("\n"));
      assert.doesNotMatch(lines.join(), /zzqq|of mr/);
      assert.ok((await logins(etcd.address)) - before <= 2, "a storm of logins");
      await stranger.close();
    }
    await using open = await useEtcd();
    const shy = new EtcdCoordinator({ ...right, address: open.address, ttlMs: 2_000 });
    await assert.rejects(shy.leader(), /asks nobody for a password, yet ETCD_ROOT_PASSWORD is set/);
    await shy.close();
  });

  it("and takes tokens that grow stale is logged in to again, once", async () => {
    await using folder = await scratchFolder("etcd-jwt");
    const [priv, pub] = [join(folder.path, "k.pem"), join(folder.path, "k.pub")];
    await run("openssl", ["genrsa", "-out", priv, "2048"]);
    await run("openssl", ["rsa", "-in", priv, "-pubout", "-out", pub]);
    const jwt = `jwt,pub-key=${pub},priv-key=${priv},sign-method=RS256,ttl=3s`;
    await using etcd = await useEtcd(["--auth-token", jwt]);
    await askForPasswords(etcd.address);
    const options = { address: etcd.address, user: "mr", password: PASSWORD, prefix: "mr/" };
    const coordinator = new EtcdCoordinator({ ...options, ttlMs: 3_000 });
    const other = new EtcdCoordinator({ ...options, ttlMs: 3_000 });
    const term = await coordinator.campaign(SELF, NEVER);
    await term.commit([{ key: "job/1/spec", value: "before" }]);
    let hints = 0;
    using _watch = other.watchLeader(() => {
      hints += 1;
    });

    // Whoever changes users makes all tokens old.
    const admin = new Etcd3({
      hosts: etcd.address,
      auth: { username: "root", password: "root's own" },
    });
    await admin.user("somebody").create("else");
    admin.close();
    const before = await logins(etcd.address);
    await term.commit([{ key: "job/1/spec", value: "after" }]);
    assert.equal((await logins(etcd.address)) - before, 1);
    await Promise.all(Array.from({ length: 20 }, () => coordinator.leader()));
    assert.equal((await logins(etcd.address)) - before, 1);

    // And they run out.
    const startMs = performance.now();
    let commits = 0;
    await until("two lives of a token", async () => {
      commits += 1;
      await term.commit([{ key: "job/1/spec", value: String(commits) }]);
      return performance.now() - startMs > 6_500;
    });
    assert.ok(term.valid());
    assert.ok((await logins(etcd.address)) - before <= 5, "a storm of logins");
    assert.equal((await other.leader())?.epoch, term.epoch);
    await term.resign();
    await until("a hint from a watch that outlived its token", () => hints > 0);
    await coordinator.close();
    await other.close();
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
