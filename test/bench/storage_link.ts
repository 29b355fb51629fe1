/**
 * A link to the storage as a cloud has it: `node storage_link.ts TARGET_PORT MB_PER_S LATENCY_MS` listens
 * on a port of its own, prints it, and lets every connection pass so much a second, so much later.
 */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A pause shorter than this is not worth a timer. */
const SLACK_MS = 4;

function pass(from: Socket, to: Socket, bytesPerMs: number, latencyMs: number): void {
  let freeMs = 0;
  let pending: Promise<unknown> | undefined;
  from.on("data", (chunk: Buffer) => {
    const nowMs = performance.now();
    freeMs = Math.max(nowMs, freeMs) + chunk.length / bytesPerMs;
    setTimeout(() => {
      if (!to.writable || to.write(chunk) || pending !== undefined) return;
      // The receiver is slower than the link.
      pending = new Promise((resolve) => to.once("drain", resolve)).then(() => {
        pending = undefined;
        from.resume();
      });
      from.pause();
    }, latencyMs);
    const aheadMs = freeMs - nowMs;
    if (aheadMs < SLACK_MS) return;
    from.pause();
    setTimeout(() => pending ?? from.resume(), aheadMs);
  });
  from.on("end", () => setTimeout(() => to.end(), latencyMs));
  from.on("error", () => undefined);
  from.on("close", () => setTimeout(() => to.destroy(), latencyMs + SLACK_MS));
}

const [target, mbPerSecond, latencyMs] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
];
const server = createServer((client) => {
  const upstream = connect(target, "127.0.0.1");
  for (const socket of [client, upstream]) socket.setNoDelay(true);
  const bytesPerMs = (mbPerSecond * 1_000_000) / 1_000;
  pass(client, upstream, bytesPerMs, latencyMs / 2);
  pass(upstream, client, bytesPerMs, latencyMs / 2);
});
server.listen(0, "127.0.0.1", () =>
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`),
);
