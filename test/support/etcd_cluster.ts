import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Etcd3 } from "etcd3";
import { FaultyLink } from "./fault_proxies.ts";
import { freePort, type ServerProcess, scratchFolder, until } from "./processes.ts";
import { etcdBinary, startEtcd } from "./servers.ts";

/**
 * How a member fails. `killed`: its process is gone. `frozen`: it takes connections and says
 * nothing. `cut`: nothing passes between it and everybody else, and nobody is told.
 */
export type MemberFault = "killed" | "frozen" | "cut";

/** A real etcd of several members, each reached by clients and by its peers over links that can fail. */
export class EtcdCluster implements AsyncDisposable {
  readonly members: Member[];
  private readonly stack: AsyncDisposableStack;

  constructor(members: Member[], stack: AsyncDisposableStack) {
    this.members = members;
    this.stack = stack;
  }

  /** For clients: all members. */
  get address(): string {
    return this.members.map(({ address }) => address).join(",");
  }

  /** Which of the members (from 0) leads raft. */
  async raftLeader(): Promise<number> {
    return until("a member that leads etcd", async () => {
      for (const [index, member] of this.members.entries()) {
        const { self, leader } = await member.status().catch(() => ({ self: "0", leader: "1" }));
        if (self === leader) return index;
      }
      return undefined;
    });
  }

  /** Grows with every election of etcd's own. */
  async raftTerm(): Promise<number> {
    const terms = this.members.map((member) =>
      member.status().then(
        ({ term }) => term,
        () => 0,
      ),
    );
    return Math.max(...(await Promise.all(terms)));
  }

  async break(index: number, fault: MemberFault): Promise<void> {
    const member = this.members[index] as Member;
    if (fault === "killed") await member.process.stop("SIGKILL");
    if (fault === "frozen") await member.process.freeze();
    if (fault !== "cut") return;
    member.clients.break("cut");
    member.peers.break("cut");
    for (const other of this.members)
      if (other !== member) other.peers.break("cut", member.process.child.pid);
  }

  /** Resolves when it is one of the cluster again. */
  async mend(index: number, fault: MemberFault): Promise<void> {
    const member = this.members[index] as Member;
    if (fault === "killed") await member.start();
    if (fault === "frozen") member.process.signal("SIGCONT");
    if (fault === "cut")
      for (const { clients, peers } of this.members)
        for (const link of [clients, peers]) link.mend();
    await until("a member that follows again", async () => {
      const { leader } = await member.status().catch(() => ({ leader: "0" }));
      return leader !== "0" && (await member.reads());
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stack.disposeAsync();
  }
}

export class Member {
  readonly clients: FaultyLink;
  readonly peers: FaultyLink;
  private readonly launch: () => Promise<ServerProcess>;
  private readonly direct: Etcd3;
  process!: ServerProcess;

  constructor(clients: FaultyLink, peers: FaultyLink, launch: () => Promise<ServerProcess>) {
    this.clients = clients;
    this.peers = peers;
    this.launch = launch;
    this.direct = new Etcd3({ hosts: `http://127.0.0.1:${clients.target}` });
  }

  get address(): string {
    return `http://127.0.0.1:${this.clients.port}`;
  }

  async start(): Promise<void> {
    this.process = await this.launch();
  }

  /** Raft ids; a leader of 0 is none. */
  async status(): Promise<{ self: string; leader: string; term: number }> {
    const { header, leader } = await this.direct.maintenance.status({ deadline: Date.now() + 500 });
    return { self: header.member_id, leader, term: Number(header.raft_term) };
  }

  /** Whether it answers what takes a majority. */
  reads(): Promise<boolean> {
    const look = this.direct.get("x").options({ deadline: Date.now() + 500 });
    return look.exec().then(
      () => true,
      () => false,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.direct.close();
    if (this.process === undefined) return;
    this.process.signal("SIGCONT");
    await this.process.stop("SIGKILL");
  }
}

export async function useEtcdCluster(binary = etcdBinary(), size = 3): Promise<EtcdCluster> {
  const stack = new AsyncDisposableStack();
  try {
    const folder = stack.use(await scratchFolder("etcd-cluster"));
    const links: { clients: FaultyLink; peers: FaultyLink }[] = [];
    for (let i = 0; i < size; i += 1)
      links.push({
        clients: stack.use(await FaultyLink.open(await freePort())),
        peers: stack.use(await FaultyLink.open(await freePort())),
      });
    const peerUrl = (i: number) => `http://127.0.0.1:${links[i]?.peers.port}`;
    const cluster = links.map((_, i) => `m${i}=${peerUrl(i)}`).join(",");
    const members = links.map(({ clients, peers }, i) => {
      const args = [
        ...["--name", `m${i}`, "--data-dir", join(folder.path, `m${i}`)],
        ...["--listen-client-urls", `http://127.0.0.1:${clients.target}`],
        ...["--advertise-client-urls", `http://127.0.0.1:${clients.port}`],
        ...["--listen-peer-urls", `http://127.0.0.1:${peers.target}`],
        ...["--initial-advertise-peer-urls", peerUrl(i), "--initial-cluster", cluster],
        // The default from 3.5 on: who was cut off does not depose the leader when it comes back.
        "--pre-vote",
      ];
      return stack.use(new Member(clients, peers, () => startEtcd(binary, args, `member ${i}`)));
    });
    await Promise.all(members.map((member) => member.start()));
    return new EtcdCluster(members, stack.move());
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

const execute = promisify(execFile);
/** Each of its steps may take so long, in milliseconds. */
const UNPACK_MS = 60_000;

/**
 * A newer etcd than this machine's own, out of Debian's package of it and into a folder.
 * @returns the path of the binary, or why there is none.
 */
export async function unpackEtcd(
  suite: string,
  folder: string,
): Promise<{ path: string } | string> {
  const run = async (command: string, args: string[]) => {
    const { stdout } = await execute(command, args, { cwd: folder, timeout: UNPACK_MS });
    return stdout;
  };
  try {
    const format = "$(CODENAME)|$(ORIGIN)|$(SITE)";
    const targets = await run("apt-get", [
      "indextargets",
      "--format",
      format,
      "Created-By: Packages",
    ]);
    const mirrors = targets.split("\n").map((line) => line.split("|"));
    const [, , site] = mirrors.find((m) => m[1] === "Debian" && /^[a-z]+$/.test(m[0] ?? "")) ?? [];
    if (site === undefined) return "this machine's apt knows no mirror of Debian";
    const keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    await writeFile(join(folder, "list"), `deb [signed-by=${keys}] ${site} ${suite} main\n`);
    for (const path of ["lists/partial", "cache/archives/partial"])
      await mkdir(join(folder, path), { recursive: true });
    const apart = [
      ...["-o", `Dir::Etc::sourcelist=${join(folder, "list")}`, "-o", "Dir::Etc::sourceparts=-"],
      ...["-o", `Dir::State::lists=${join(folder, "lists")}`, "-o", "Debug::NoLocking=1"],
      ...["-o", `Dir::Cache=${join(folder, "cache")}`, "-o", "APT::Sandbox::User=root"],
    ];
    await run("apt-get", [...apart, "update", "-q"]);
    await run("apt-get", [...apart, "download", "-q", "etcd-server"]);
    const deb = readdirSync(folder).find((name) => name.endsWith(".deb")) ?? "";
    await run("dpkg", ["-x", join(folder, deb), join(folder, "root")]);
    const path = join(folder, "root", "usr", "bin", "etcd");
    return existsSync(path) ? { path } : `${deb} has no etcd`;
  } catch (error) {
    return (error as Error).message;
  }
}
