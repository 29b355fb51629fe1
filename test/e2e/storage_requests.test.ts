import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { pipeline } from "node:stream";
import { describe, it } from "node:test";
import { putText, runJob, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";
import { useAzurite } from "../support/servers.ts";

/** Passes requests on, and keeps a list of them. */
async function useCountingProxy(connectionString: string) {
  const blobEndpoint = /BlobEndpoint=([^;]+)/.exec(connectionString)?.[1] ?? "";
  const { hostname, port } = new URL(blobEndpoint);
  const seen: string[] = [];
  const server = createServer((incoming, answer) => {
    seen.push(`${incoming.method} ${decodeURIComponent(incoming.url ?? "")}`);
    const { method, url, headers } = incoming;
    const onward = request({ hostname, port, method, path: url, headers }, (response) => {
      // Whoever asked has left.
      if (answer.destroyed) return void response.destroy();
      answer.writeHead(response.statusCode ?? 502, response.headers);
      pipeline(response, answer, () => undefined);
    });
    onward.on("error", () => answer.destroy());
    pipeline(incoming, onward, () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = blobEndpoint.replace(`:${port}`, `:${(server.address() as AddressInfo).port}`);
  return {
    seen,
    /** The account behind it. */
    blob: connectionString.replace(blobEndpoint, endpoint),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe("storage requests", () => {
  it("of a job are at most m x r + 4 (m + r) + 50, and its tasks' are counted", async () => {
    await using azurite = await useAzurite();
    await using proxy = await useCountingProxy(azurite.connectionString);
    const { blob } = proxy;
    await using cluster = await useCluster({ workers: 2, slots: 2, blob });
    const [maps, reduces] = [40, 7];
    const line = (i: number) => `word${i % 1_000} word${i % 77} w${i}\n`;
    const text = Array.from({ length: 20_000 }, (_, i) => line(i)).join("");
    await putText(cluster.client, "words", "all", text);
    await putText(
      cluster.client,
      "dfs-scripts",
      "split.py",
      "import sys\nfor line in sys.stdin:\n  for word in line.split(): print(word, 1, sep='\\t')\n",
    );
    proxy.seen.length = 0;
    const job = await runJob(cluster.client, {
      mapper: "split.py",
      reducer: "sum",
      combiner: "sum",
      data: "words",
      m_num: maps,
      r_num: reduces,
    });
    assert.equal(job.state, "succeeded", job.error?.message);
    const sweeps = () => proxy.seen.filter((seen) => seen.startsWith("DELETE")).length;
    await until("the sweep of the map outputs", () => sweeps() >= maps);
    const most = maps * reduces + 4 * (maps + reduces) + 50;
    const count = proxy.seen.length;
    assert.ok(count <= most, `${count} requests, at most ${most}:\n${tally(proxy.seen)}`);
    const counted = job.counters["mr,storage requests"] ?? 0;
    assert.ok(counted > maps * reduces && counted <= count, `${counted} of ${count} were counted`);
  });

  it("for a task's input are made while the slot's last task is at its output", async () => {
    await using azurite = await useAzurite();
    await using proxy = await useCountingProxy(azurite.connectionString);
    await using cluster = await useCluster({ workers: 1, slots: 1, blob: proxy.blob });
    await putText(cluster.client, "words", "all", "some words\n".repeat(2_000));
    proxy.seen.length = 0;
    const maps = 20;
    const request = { mapper: "cat", reducer: "cat", data: "words", m_num: maps, r_num: 2 };
    const job = await runJob(cluster.client, request);
    assert.equal(job.state, "succeeded", job.error?.message);
    // With one slot, and nothing ahead, no input is asked for before the output of the task before is there.
    let [inputs, outputs, early] = [0, 0, 0];
    for (const seen of proxy.seen) {
      if (/^PUT \/[^?]*\/dfs-intermediate\//.test(seen)) outputs += 1;
      if (!/^GET \/[^?]*\/words\/all/.test(seen)) continue;
      inputs += 1;
      if (inputs > outputs + 1) early += 1;
    }
    assert.deepEqual([inputs, outputs], [maps, maps], tally(proxy.seen));
    // The last ones are not granted ahead, and a grant may come late.
    assert.ok(early > maps / 2, `${early} of ${maps} inputs were asked for early`);
  });
});

/** How many there are of each kind. */
function tally(seen: string[]): string {
  const kinds = new Map<string, number>();
  for (const entry of seen) {
    const kind = entry.replace(/[0-9a-z]*\d{3,}[^&]*/g, "#").slice(0, 100);
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [...kinds].map(([kind, count]) => `${count} ${kind}`).join("\n");
}
