import { availableParallelism } from "node:os";
import { printable } from "../../internal/model/printable.ts";
import { say as sayInTime } from "../common/log_output.ts";
import { LocalCluster } from "./local_cluster.ts";
import { type Args, type Command, UsageError } from "./options.ts";
import { tell } from "./terminal.ts";

const DEFAULT_WORKERS = 2;
const DEFAULT_MASTERS = 2;

export const CLUSTER_FLAGS = {
  dir: { value: "DIR", help: "where data, state and logs are kept (default .mr)" },
  workers: { value: "N", help: `worker processes (default ${DEFAULT_WORKERS})` },
  masters: {
    value: "N",
    help: `master processes, of which one leads (default ${DEFAULT_MASTERS})`,
  },
  slots: { value: "N", help: "tasks at a time per worker (default: the cores, shared out)" },
  etcd: { value: "URL", help: "a real etcd instead of the SQLite file" },
  blob: { value: "CONNECTION", help: "a real Blob account (or Azurite) instead of the folder" },
};

export const localCommand: Command = {
  name: "local",
  usage: "[options]",
  summary:
    "Starts a whole cluster on this machine and prints `ready URL` when jobs can be taken.\n" +
    "Ctrl-C ends it in good order; a second Ctrl-C at once. The data stays in --dir.",
  flags: { ...CLUSTER_FLAGS, port: { value: "PORT", help: "of the proxy (default 8080; 0: any)" } },
  positionals: [0, 0],
  async run(args) {
    const cluster = clusterFrom(args, args.whole("port", 0) ?? 8080, ".mr");
    return untilInterrupted(cluster, async (url) => {
      tell(`ready ${url}`);
      await Promise.race([interruption(), cluster.broken]);
      return 0;
    });
  },
};

export function clusterFrom(args: Args, port: number, dir: string): LocalCluster {
  const workers = args.whole("workers", 1) ?? DEFAULT_WORKERS;
  if (port > 65_535) throw new UsageError("--port: at most 65535");
  return new LocalCluster({
    dir: args.text("dir") ?? dir,
    port,
    workers,
    masters: args.whole("masters", 1) ?? DEFAULT_MASTERS,
    slotsPerWorker: args.whole("slots", 1) ?? Math.ceil(availableParallelism() / workers),
    etcd: args.text("etcd"),
    blob: args.text("blob"),
    // Nobody waits for a reader who stands still: the cluster has to be looked after.
    say: (line) =>
      sayInTime(`${printable(line)}
`),
  });
}

/** Runs the body with a cluster that is closed afterwards, whatever happens. */
export async function untilInterrupted(
  cluster: LocalCluster,
  body: (url: string) => Promise<number>,
): Promise<number> {
  let interrupts = 0;
  const interrupt = () => {
    interrupts += 1;
    if (interrupts === 1) return;
    cluster.kill();
    process.exit(130);
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  try {
    const url = await Promise.race([cluster.start(), interruption().then(() => "")]);
    return url === "" ? 130 : await body(url);
  } finally {
    await cluster.close();
    process.removeListener("SIGINT", interrupt);
    process.removeListener("SIGTERM", interrupt);
  }
}

export function interruption(): Promise<void> {
  return new Promise((resolve) => {
    process.once("SIGINT", () => resolve());
    process.once("SIGTERM", () => resolve());
  });
}
