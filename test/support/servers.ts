import { existsSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { freePort, ServerProcess, scratchFolder, until } from "./processes.ts";

const ROOT = join(import.meta.dirname, "..", "..");

export interface TestServer extends AsyncDisposable {
  process: ServerProcess;
}

export function etcdBinary(): string {
  const binary = ["/usr/bin/etcd", "/usr/local/bin/etcd"].find(existsSync);
  if (binary === undefined)
    throw new Error("etcd is missing: install it (Debian: apt-get install etcd-server)");
  return binary;
}

/** Resolves when it answers, and is healthy. */
export async function startEtcd(
  binary: string,
  args: string[],
  name = "etcd",
): Promise<ServerProcess> {
  const health = `http://127.0.0.1:${await freePort()}`;
  const process = new ServerProcess(binary, [
    ...args,
    ...["--listen-metrics-urls", health, "--unsafe-no-fsync"],
  ]);
  await until(
    `${name}\n${process.said}`,
    async () => {
      if (!process.running) throw new Error(`${name} has ended\n${process.said}`);
      const answer = await fetch(`${health}/health`).catch(() => undefined);
      return answer?.ok && ((await answer.json()) as { health: string }).health === "true";
    },
    20_000,
  );
  return process;
}

/**
 * A real etcd of its own, on loopback, with its data in a scratch folder.
 * @param more options of etcd itself.
 * @param scheme https: `more` has its certificates.
 */
export async function useEtcd(
  more: string[] = [],
  scheme: "http" | "https" = "http",
): Promise<TestServer & { address: string; restart: () => Promise<void> }> {
  const folder = await scratchFolder("etcd");
  const [client, peer] = [await freePort(), await freePort()];
  const address = `${scheme}://127.0.0.1:${client}`;
  const args = [
    "--data-dir",
    folder.path,
    "--listen-client-urls",
    address,
    "--advertise-client-urls",
    address,
    "--listen-peer-urls",
    `http://127.0.0.1:${peer}`,
    "--initial-advertise-peer-urls",
    `http://127.0.0.1:${peer}`,
    "--initial-cluster",
    `default=http://127.0.0.1:${peer}`,
    ...more,
  ];
  const start = () => startEtcd(etcdBinary(), args, `etcd at ${address}`);
  const server = {
    address,
    process: await start(),
    restart: async () => {
      await server.process.stop();
      server.process = await start();
    },
    [Symbol.asyncDispose]: () => stop(server.process, folder),
  };
  return server;
}

/**
 * A real Azurite of its own, on loopback, with its data in a scratch folder.
 * @param more options of Azurite itself.
 */
export async function useAzurite(
  more: string[] = [],
): Promise<TestServer & { connectionString: string; endpoint: string }> {
  const folder = await scratchFolder("azurite");
  const port = await freePort();
  const process_ = new ServerProcess(process.execPath, [
    join(ROOT, "node_modules/azurite/dist/src/blob/main.js"),
    "--blobHost",
    "127.0.0.1",
    "--blobPort",
    String(port),
    "--silent",
    "--disableTelemetry",
    "--skipApiVersionCheck",
    "--location",
    folder.path,
    ...more,
  ]);
  await until(`Azurite at port ${port}\n${process_.said}`, () => accepts(port), 20_000);
  // Azurite's published development account: no secret.
  const endpoint = `http://127.0.0.1:${port}/devstoreaccount1`;
  const connectionString =
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;" +
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;" +
    `BlobEndpoint=${endpoint};`;
  return {
    connectionString,
    endpoint,
    process: process_,
    [Symbol.asyncDispose]: () => stop(process_, folder),
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function stop(process: ServerProcess, folder: AsyncDisposable): Promise<void> {
  await process.stop();
  await folder[Symbol.asyncDispose]();
}
