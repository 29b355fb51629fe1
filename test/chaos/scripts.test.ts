import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { processesIn, putText } from "../support/cluster.ts";
import { useFaultyCluster } from "../support/faulty_cluster.ts";
import { KnownJobs } from "../support/known_jobs.ts";
import { until } from "../support/processes.ts";

const READ = "import sys\nfor line in sys.stdin: pass\n";

/** What a script does, and what its job says of it. */
const CASES: [name: string, code: string, why: RegExp, tail?: RegExp][] = [
  [
    "exits non-zero",
    `${READ}sys.stderr.write('it is me\\n')\nsys.exit(3)`,
    /exited with 3/,
    /it is me/,
  ],
  [
    "raises",
    `${READ}raise ValueError('no such luck')`,
    /exited with 1/,
    /ValueError: no such luck/,
  ],
  ["exits without reading", "print('x')", /before it had read all its input/],
  [
    "ignores SIGTERM and sleeps",
    `import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n${READ}time.sleep(900)`,
    /no sign of life/,
  ],
  [
    "forks daemons that keep the pipe",
    `${READ}import subprocess\nfor new in (False, True): subprocess.Popen(['sleep', '900'], start_new_session=new)\nsys.exit(4)`,
    /exited with 4/,
  ],
  ["floods stdout", `${READ}\nwhile True: sys.stdout.write('x' * 9999 + '\\n')`, /20 MB on stdout/],
  ["floods stderr", `${READ}\nwhile True: sys.stderr.write('x' * 9999 + '\\n')`, /20 MB on stderr/],
  [
    "prints one endless line",
    `${READ}\nwhile True: sys.stdout.write('x' * 9999)`,
    /a line of more than/,
  ],
  [
    "allocates without end",
    `${READ}held = [bytearray(1 << 20) for _ in iter(int, 1)]`,
    /MB of memory/,
  ],
  [
    "breeds",
    `${READ}import os, time\nfor _ in range(60):\n  if os.fork() == 0: time.sleep(900)\ntime.sleep(900)`,
    /more than 30 processes/,
  ],
  [
    "leaves its process group, twice removed",
    `${READ}import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(900)
    os._exit(0)
os.wait()
sys.exit(5)`,
    /exited with 5/,
  ],
];

/** Overwrites its parent folder, and what the worker keeps for itself: cached scripts and spilled runs. */
const VANDAL = `import glob, os, sys
for line in sys.stdin: sys.stdout.write(line)
for up in ("..", "../../../own"):
    for path in glob.glob(up + "/**", recursive=True):
        if os.path.isfile(path):
            try: open(path, "w").write("vandal")
            except OSError: pass
`;

const SPY = `import os, sys
for line in sys.stdin: pass
found = open("/proc/" + str(os.getppid()) + "/environ").read() + str(os.environ)
print("secret" if "AccountKey" in found or "tell-nobody" in found else "nothing")
`;

describe("a hostile or broken script", () => {
  it("ends within its limits, says why, and leaves nothing; its neighbours finish", async () => {
    await using cluster = await useFaultyCluster({
      workers: 2,
      slots: 3,
      env: {
        MR_SCRIPT_MEMORY_MB: "200",
        MR_SCRIPT_PROCESSES: "30",
        MR_SCRIPT_OUTPUT_MB: "20",
        MR_LINE_MB: "1",
      },
    });
    const { client } = cluster;
    const jobs = await KnownJobs.prepare(client, { seed: 1, lines: 300 });
    await putText(client, "text", "a", "one\ntwo\nthree\n".repeat(20_000));
    const run = async ([name, code, why, tail]: (typeof CASES)[number], reducer: boolean) => {
      const script = `${name.replaceAll(/\W/g, "-")}.py`;
      await putText(client, "dfs-scripts", script, code);
      const bad = { mapper: script, r_num: 0 };
      const asReducer = { mapper: "known/copy-map.py", reducer: script, r_num: 1 };
      const conf = { "mapreduce.task.timeout": 4_000 };
      const request = {
        ...(reducer ? asReducer : bad),
        data: "text",
        m_num: 1,
        max_attempts: 2,
        conf,
      };
      const job = await cluster.ended(await cluster.submit(request));
      const what = `${name}: ${JSON.stringify(job.error)}`;
      assert.equal(job.state, "failed", what);
      assert.equal(job.error?.class, "user", what);
      assert.match(job.error?.message ?? "", why, what);
      assert.match(job.error?.message ?? "", /tried 2 times/, what);
      if (tail !== undefined) assert.match(job.error?.log_tail ?? "", tail, what);
      assert.equal(job.attempts.failed, 2, what);
    };
    const neighbours = await Promise.all(
      [1, 2, 3].map(() => cluster.submit(jobs.request("nonces", { sleep: 0.5 }))),
    );
    for (const reducer of [false, true])
      await Promise.all(CASES.map((example) => run(example, reducer)));
    for (const id of neighbours) {
      const job = await cluster.ended(id);
      await jobs.check(job);
      assert.equal(job.attempts.failed, 0);
    }
    const scratch = join(cluster.dir, "scratch");
    await until("the end of all they started", () => processesIn(scratch).length === 0);
    await until("no file of theirs", () =>
      readdirSync(scratch).every((worker) => {
        const scripts = join(scratch, worker, "scripts");
        return !existsSync(scripts) || readdirSync(scripts).length === 0;
      }),
    );
  });

  it("fails its job after four tries, with the first true cause on top", async () => {
    await using cluster = await useFaultyCluster({ workers: 2 });
    const { client } = cluster;
    await putText(client, "text", "a", "x\n");
    const code = `${READ}import os
n = os.environ["mapreduce_task_attempt_id"].split("-")[-1]
sys.stderr.write("cause " + n + "\\n")
sys.exit(10 + int(n))`;
    await putText(client, "dfs-scripts", "four.py", code);
    const id = await cluster.submit({ mapper: "four.py", data: "text", m_num: 1, r_num: 0 });
    const job = await cluster.ended(id);
    assert.equal(job.attempts.failed, 4);
    assert.match(job.error?.message ?? "", /exited with 11 \(tried 4 times\)/);
    assert.match(job.error?.log_tail ?? "", /cause 1\n/);
  });

  it("that writes wherever it can spoils nobody's result", async () => {
    await using cluster = await useFaultyCluster({
      workers: 1,
      slots: 3,
      env: { MR_SORT_MB: "1" },
    });
    const { client } = cluster;
    const jobs = await KnownJobs.prepare(client, { seed: 2, lines: 20_000 });
    await putText(client, "text", "a", "x\n".repeat(100));
    await putText(client, "dfs-scripts", "vandal.py", VANDAL);
    const vandal = { mapper: "vandal.py", data: "text", m_num: 12, r_num: 0, max_attempts: 10 };
    const ids = await Promise.all([
      cluster.submit(vandal),
      cluster.submit(jobs.request("nonces", { maps: 4 })),
      cluster.submit(vandal),
      cluster.submit(jobs.request("count", { maps: 4 })),
    ]);
    for (const id of ids) {
      const job = await cluster.ended(id);
      if (job.name !== "") await jobs.check(job);
    }
  });

  it("reads its parent's environment and finds no secret there", async () => {
    await using cluster = await useFaultyCluster({
      workers: 1,
      remote: true,
      env: { MR_WORKER_NAME: "w", SOME_TOKEN: "tell-nobody" },
    });
    const { client } = cluster;
    await putText(client, "text", "a", "x\n");
    await putText(client, "dfs-scripts", "spy.py", SPY);
    const id = await cluster.submit({ mapper: "spy.py", data: "text", m_num: 1, r_num: 0 });
    await cluster.ended(id);
    assert.equal(await (await client.fetch(`/jobs/${id}/output`)).text(), "nothing\n");
  });
});
