import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { JobJson } from "../../cmd/mr/client.ts";
import { outputOf, putText } from "../support/cluster.ts";
import { writeCorpus } from "../support/corpus.ts";
import { oracle, sortedLines } from "../support/oracle.ts";
import { scratchFolder, until } from "../support/processes.ts";
import { CANARY, ClusterOfPods } from "./cluster_of_pods.ts";
import { buildImages, type Images, obstacle } from "./images.ts";

const EXAMPLES = join(import.meta.dirname, "..", "..", "examples", "py_scripts", "word_count");
const CANARY_SCRIPT = join(import.meta.dirname, "canary.py");
const DEADLINE_MS = 300_000;

/** Ways to other scripts that run on the same worker at the same time: only Landlock is in it. */
const BY_LANDLOCK = new Set([
  "environment_of_every_process",
  "open_files_of_every_process",
  "file_systems_of_every_process",
  "working_folder_of_every_process",
  "memory_of_every_process",
  "memory_map_of_every_process",
  "signal_the_first_process",
  "signal_every_process",
  "files_with_the_secret",
  "layouts_of_others",
  "folders_of_other_attempts",
  "folder_beside_mine",
]);

const why = obstacle();
if (why !== undefined) process.stderr.write(`the images are not built or run here: ${why}\n`);

describe("the containers as they are shipped", { skip: why ?? false }, () => {
  let images: Images;
  let cluster: ClusterOfPods;
  before(
    async () => {
      images = await buildImages();
      cluster = await ClusterOfPods.start(images);
      await cluster.scale(1);
      await putText(cluster.client, "input", "one", "a line\n");
    },
    { timeout: 1_200_000 },
  );
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
    await images?.[Symbol.asyncDispose]();
  });

  const run = async (request: object): Promise<JobJson> => {
    let last: JobJson | undefined;
    const end = AbortSignal.timeout(DEADLINE_MS);
    for await (const job of cluster.client.run(request, end)) last = job;
    assert.ok(last !== undefined);
    assert.equal(last.state, "succeeded", `${JSON.stringify(last.error)}\n${cluster.said}`);
    return last;
  };

  /** @param container where its processes would be. */
  const leavesNothing = async (container: string) => {
    const flees = `import os
for _ in range(16):
    if os.fork() == 0:
        while True:
            if os.fork(): os._exit(0)
            os.setsid()
`;
    const leaves = "import sys\nsys.stdin.read()\nopen('/dev/shm/left', 'w').write('x')\n";
    await putText(cluster.client, "dfs-scripts", "flees.py", flees);
    await putText(cluster.client, "dfs-scripts", "leaves.py", leaves);
    await run({ mapper: "flees.py", data: "input", r_num: 0 });
    await run({ mapper: "leaves.py", data: "input", r_num: 0 });
    const where = cluster.workers[0]?.container(container);
    // Whether a process was started meanwhile that is none of the shell's: the last field is the last one's number.
    const watches = `read a < /proc/loadavg; i=0
while [ $i -lt 100000 ]; do i=$((i + 1)); done
read b < /proc/loadavg; echo "\${a##* } \${b##* }"`;
    await until("nobody but the runner", () => {
      const said = where?.exec(["/bin/sh", "-c", watches]);
      const [before, after] = said?.stdout.trim().split(" ") ?? [];
      return before !== undefined && before !== "" && before === after;
    });
    const left = () => where?.exec(["/bin/ls", "-A", "/dev/shm"]).stdout;
    await until("no shared memory", () => left()?.includes("left") === false);
  };

  it("answer their probes", async () => {
    const [worker] = cluster.workers;
    for (const kind of ["startupProbe", "readinessProbe", "livenessProbe"] as const)
      await until(`${kind} of both containers`, () => worker?.probe(kind));
  });

  it("run a job while workers are scaled from 1 to 4 to 2 and a master is killed", async () => {
    await using folder = await scratchFolder("books");
    const paths = await writeCorpus(folder.path, { files: 4, bytesPerFile: 1_000_000, seed: 7 });
    const [mapper, reducer] = ["mapper.py", "reducer.py"].map((name) =>
      readFileSync(join(EXAMPLES, name), "utf8"),
    ) as [string, string];
    // Slow enough for what is to happen meanwhile.
    const slow = `import time\ntime.sleep(1)\n${mapper}`;
    await putText(cluster.client, "dfs-scripts", "slow.py", slow);
    await putText(cluster.client, "dfs-scripts", "reducer.py", reducer);
    for (const path of paths)
      await putText(cluster.client, "books", basename(path), readFileSync(path));
    const request = {
      mapper: "slow.py",
      reducer: "reducer.py",
      data: "books",
      m_num: 40,
      r_num: 4,
    };
    const ended = run(request);
    ended.catch(() => undefined);
    const mapsDone = async () => {
      const { jobs } = await cluster.client.json<{ jobs: JobJson[] }>("/jobs");
      return jobs[0]?.map.done ?? 0;
    };
    await until("the first map tasks", async () => (await mapsDone()) >= 2);
    await cluster.scale(4);
    await until("four workers", async () => (await cluster.workersConnected()) === 4);
    await until("more map tasks", async () => (await mapsDone()) >= 10);
    const leader = await cluster.leader();
    leader.container("master").signal("KILL");
    await until("map tasks under the next leader", async () => {
      return (await mapsDone().catch(() => 0)) >= 20;
    });
    await cluster.scale(2);
    const job = await ended;
    const whole = Buffer.concat(paths.map((path) => readFileSync(path)));
    const expected = await oracle(whole, mapper, reducer);
    assert.deepEqual(sortedLines(await outputOf(cluster.client, job.id)), expected);
    await until("the master that was killed", () => leader.container("master").starts === 2);
  });

  it("start scripts again after their runner was killed, or told to end", async () => {
    const runner = cluster.workers[0]?.container("runner");
    await cluster.scale(1);
    for (const [times, signal] of ["KILL", "TERM"].entries()) {
      runner?.signal(signal);
      await until("the next runner", () => runner?.starts === times + 2, 10_000);
      const job = await run({ mapper: "cat", data: "input", r_num: 0 });
      assert.equal((await outputOf(cluster.client, job.id)).toString(), "a line\n");
    }
  });

  it("answer their probes while short tasks come and go", async () => {
    const [worker] = cluster.workers;
    assert.ok(worker !== undefined);
    for (let i = 0; i < 40; i += 1)
      await putText(cluster.client, "short", `part-${i}`, `line ${i}\n`);
    let isOver = false;
    const job = run({ mapper: "cat", data: "short", m_num: 40, r_num: 0 }).finally(() => {
      isOver = true;
    });
    while (!isOver) {
      assert.ok(worker.probe("livenessProbe"), worker.said);
      // What blocks this process blocks the job's reader.
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await job;
  });

  it("leave nothing of a script that will not end", () => leavesNothing("runner"));

  it("execute nothing of a job in the worker", async () => {
    const [worker] = cluster.workers;
    const { client } = cluster;
    const escapes = "#!/bin/sh\ntouch /layouts/ESCAPED /scratch/ESCAPED\necho /usr/bin/python3\n";
    await putText(client, "dfs-scripts", "escapes", escapes);
    await putText(client, "dfs-scripts", "waits.py", "import time\ntime.sleep(600)\n");
    const names = ["python3", "python", "env", "node"];
    const { id } = await client.json<JobJson>("/request", {
      method: "POST",
      headers: { prefer: "respond-async", "content-type": "application/json" },
      body: JSON.stringify({
        mapper: "waits.py",
        files: names.map((name) => `escapes#${name}`),
        data: "input",
        r_num: 0,
      }),
    });
    const layout = await until("its layout", () => {
      const folder = worker?.volumePath("layouts") ?? "";
      const found = readdirSync(folder, { recursive: true, encoding: "utf8" });
      const path = found.find((each) => each.includes(id) && each.endsWith("/node"));
      return path === undefined ? undefined : `/layouts/${path.slice(0, -"/node".length)}`;
    });
    for (const [i, line] of [
      ...names.map((name) => `#!${layout}/${name}`),
      `#!/usr/bin/env ${layout}/python3`,
      `#!${layout}/env python3`,
    ].entries()) {
      const script = `named-${i}.py`;
      await putText(client, "dfs-scripts", script, `${line}\nprint(1)\n`);
      const request = { mapper: script, data: "input", r_num: 0, max_attempts: 1 };
      let last: JobJson | undefined;
      for await (const job of client.run(request, AbortSignal.timeout(DEADLINE_MS))) last = job;
      assert.equal(last?.state, cluster.hasLandlock ? "failed" : last?.state, line);
    }
    await client.json(`/jobs/${id}`, { method: "DELETE" });
    for (const volume of ["layouts", "scratch"])
      assert.ok(!existsSync(join(worker?.volumePath(volume) ?? "", "ESCAPED")), volume);
  });

  it("install what a job ships, and run modules, with neither /tmp nor network", async () => {
    const module = "export const map = (line, emit) => emit(line.toUpperCase(), process.getuid());";
    await putText(cluster.client, "dfs-scripts", "upper.ts", module);
    const job = await run({ mapper: "upper.ts", data: "input", r_num: 0 });
    assert.equal((await outputOf(cluster.client, job.id)).toString(), "A LINE\t10002\n");
    const sees = "import sys, tempfile\nwith tempfile.TemporaryFile() as f: print(sys.prefix)\n";
    await putText(cluster.client, "dfs-scripts", "sees.py", sees);
    await putText(cluster.client, "dfs-scripts", "requirements.txt", "--no-index\n");
    const inside = await run({
      mapper: "sees.py",
      data: "input",
      r_num: 0,
      files: ["requirements.txt"],
    });
    assert.match((await outputOf(cluster.client, inside.id)).toString(), /^\/cell\/environments\//);
  });

  it("give a job a network if it asks for it, and the operator permits", async () => {
    const dials = `import os, socket
connection = socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), 5)
print(connection.getpeername()[1])
`;
    await putText(cluster.client, "dfs-scripts", "dials.py", dials);
    const env = { PORT: String(cluster.ports.blob) };
    const job = await run({ mapper: "dials.py", data: "input", r_num: 0, env, network: true });
    const printed = (await outputOf(cluster.client, job.id)).toString();
    assert.equal(printed, `${cluster.ports.blob}\n`);
  });

  describe("keep their secrets from a script that looks for them", () => {
    const results = new Map<string, string>();
    const { ways, env } = canaryOf();

    before(async () => {
      await putText(cluster.client, "dfs-scripts", "canary.py", readFileSync(CANARY_SCRIPT));
      // Another script on the same worker, which has the secret.
      const victim = "import os, time\nopen('secret', 'w').write(os.environ['SECRET'])\n";
      const wait = "print('here', flush=True)\nwhile True: time.sleep(1)\n";
      await putText(cluster.client, "dfs-scripts", "victim.py", victim + wait);
      const client = cluster.client;
      const other = await client.json<JobJson>("/request", {
        method: "POST",
        headers: { prefer: "respond-async", "content-type": "application/json" },
        body: JSON.stringify({
          mapper: "victim.py",
          data: "input",
          r_num: 0,
          env: { SECRET: CANARY },
        }),
      });
      await until("the other script", async () => {
        const { map } = await client.json<JobJson>(`/jobs/${other.id}`);
        return map.running === 1;
      });
      const job = await run({ mapper: "canary.py", data: "input", r_num: 0, env: env(cluster) });
      await client.json(`/jobs/${other.id}`, { method: "DELETE" });
      for (const [way, result] of resultsIn((await outputOf(client, job.id)).toString()))
        results.set(way, result);
    });

    it("in 60 ways and more, each of which was tried", () => {
      assert.ok(ways.length >= 60, String(ways.length));
      assert.deepEqual([...results.keys()], ways);
    });

    it("and of which many lead there where nothing is in the way", () => {
      // In the worker's own container, as the worker's user.
      const [worker] = cluster.workers;
      assert.ok(worker !== undefined);
      writeFileSync(join(worker.volumePath("scratch"), "canary.py"), readFileSync(CANARY_SCRIPT));
      const open = [
        "environment_of_the_first_process",
        "worker_among_the_processes",
        "files_with_the_secret",
        "private_key_of_the_worker",
        "scratch_folder_of_the_worker",
        "memory_map_of_every_process",
        "poison_a_layout",
        "common_temporary_folder",
        "etcd",
        "masters",
        "storage_account",
        "proxy",
        "look_up_a_name",
        "routes_of_the_kernel",
      ];
      const command = ["/usr/bin/python3", "/scratch/canary.py", ...open];
      const said = worker.container("worker").exec(command, env(cluster), "10001:10001");
      const kept = [...resultsIn(said.stdout)].filter(([, result]) => !/^LEAKED\t/.test(result));
      assert.deepEqual(kept, [], said.stdout + said.stderr);
    });

    it("when they are one container with two users, too", async () => {
      const pod = await cluster.replaceByCombined();
      await until("it", async () => (await cluster.workersConnected()) === 1).catch(() => {
        throw new Error(pod.said);
      });
      const job = await run({ mapper: "canary.py", data: "input", r_num: 0, env: env(cluster) });
      const found = resultsIn((await outputOf(cluster.client, job.id)).toString());
      const leaks = [...found].filter(([, result]) => !/^kept\t/.test(result));
      await leavesNothing("worker");
      // That there is a worker can be seen, and nothing of what it has.
      assert.deepEqual(
        leaks.map(([way]) => way),
        ["worker_among_the_processes"],
        JSON.stringify(leaks),
      );
    });

    for (const way of ways)
      it(way.replaceAll("_", " "), (test) => {
        const result = results.get(way) ?? "not tried";
        if (BY_LANDLOCK.has(way) && !cluster.hasLandlock)
          return test.skip("this kernel has no Landlock");
        assert.match(result, /^kept\t/);
      });
  });
});

/** What the script tries, and what it has to know. */
function canaryOf() {
  const env = (cluster: ClusterOfPods | undefined): Record<string, string> => {
    const { ports } = cluster ?? { ports: { etcd: 0, masters: [], blob: 0, proxy: 0 } };
    const [worker] = cluster?.workers ?? [];
    return {
      // Backwards: the script must not find it in itself.
      WHAT: [...CANARY].reverse().join(""),
      PORTS: [ports.etcd, ...ports.masters, ports.blob, ports.proxy].join(),
      RUNNER: worker?.replaced("@mr-runner") ?? "",
    };
  };
  const list = execFileSync("python3", [CANARY_SCRIPT, "--list"], {
    encoding: "utf8",
    env: { ...process.env, ...env(undefined) },
  });
  return { ways: list.trimEnd().split("\n"), env };
}

function resultsIn(text: string): Map<string, string> {
  const lines = text.trimEnd().split("\n");
  return new Map(
    lines.map((line): [string, string] => {
      const tab = line.indexOf("\t");
      return [line.slice(0, tab), line.slice(tab + 1)];
    }),
  );
}
