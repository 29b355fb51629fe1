import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Page } from "playwright-core";
import { useBrowser } from "../support/browser.ts";
import { putText, type TestCluster, useCluster } from "../support/cluster.ts";
import { until } from "../support/processes.ts";

/** The first line of the answer to a request as it is given here, and all of it. */
function ask(url: string, lines: string[], body = ""): Promise<{ status: number; text: string }> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname);
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.once("error", reject);
    socket.once("close", () => resolve({ status: Number(text.split(" ")[1]), text }));
    const head = [...lines, "Connection: close", `Content-Length: ${body.length}`];
    socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
  });
}

describe("a proxy that asks for no token", () => {
  let cluster: TestCluster;
  let host: string;
  before(async () => {
    cluster = await useCluster({ workers: 1, env: { MR_HTTP_HOSTS: "jobs.example,proxy" } });
    host = new URL(cluster.url).host;
    await putText(cluster.client, "text", "a", "a\n");
  });
  after(() => cluster[Symbol.asyncDispose]());

  it("answers to addresses, loopback names and its own, and to no other", async () => {
    const port = host.split(":")[1];
    const own = [
      host,
      "127.0.0.1",
      "10.1.2.3:8080",
      "[::1]:80",
      "[fd00::12]",
      "localhost",
      `localhost:${port}`,
      "mr.localhost",
      "LOCALHOST:1",
      "jobs.example",
      "Jobs.Example:443",
      "proxy:80",
    ];
    const foreign = [
      "evil.example",
      `evil.example:${port}`,
      "localhost.evil.example",
      "127.0.0.1.evil.example",
      "10.1.2.3.nip.io",
      "notlocalhost",
      "x.jobs.example",
      "proxy.mr",
      "jobs.example.evil",
      "0x7f000001.example",
      "[::1].evil",
    ];
    for (const [names, status] of [
      [own, 200],
      [foreign, 403],
    ] as const)
      for (const name of names)
        for (const path of ["/jobs", "/storage/text/a", "/healthz", "/metrics"]) {
          const answer = await ask(cluster.url, [`GET ${path} HTTP/1.1`, `Host: ${name}`]);
          assert.equal(answer.status, status, `${name} ${path}: ${answer.text}`);
        }
  });

  it("answers no page of another origin, whatever it asks for and however", async () => {
    const foreign = [
      ["Origin: http://evil.example"],
      ["Origin: null"],
      ["Origin: http://127.0.0.1:1"],
      ["Origin: nonsense"],
      [`Origin: http://evil.example@${host}.evil.example`],
      ["Sec-Fetch-Site: cross-site"],
      ["Sec-Fetch-Site: same-site"],
      ["Sec-Fetch-Site: anything", "Sec-Fetch-Mode: no-cors"],
      ["Origin: http://evil.example", "Sec-Fetch-Site: same-origin"],
    ];
    const job = JSON.stringify({ mapper: "/bin/cat", data: "text", r_num: 0 });
    const asked = [
      ["POST /request", job],
      ["GET /jobs", ""],
      ["PUT /storage/text/b", "b"],
      ["DELETE /storage/text/a", ""],
      ["OPTIONS /request", ""],
    ] as const;
    for (const headers of foreign)
      for (const [line, body] of asked) {
        const lines = [`${line} HTTP/1.1`, `Host: ${host}`, ...headers];
        const { status, text } = await ask(cluster.url, lines, body);
        assert.equal(status, 403, `${line} ${headers}: ${text}`);
        assert.doesNotMatch(text, /access-control-allow/i);
      }
    const own = [
      [],
      [`Origin: http://${host}`],
      ["Sec-Fetch-Site: none"],
      ["Sec-Fetch-Site: same-origin"],
    ];
    for (const headers of own) {
      const lines = ["POST /request HTTP/1.1", `Host: ${host}`, ...headers];
      const type = "Content-Type: application/x-www-form-urlencoded";
      const answer = await ask(cluster.url, [...lines, type, "Prefer: respond-async"], job);
      assert.equal(answer.status, 202, answer.text);
    }
  });

  it("says with every answer that it is no page, and of no other's", async () => {
    for (const path of ["/jobs", "/storage/text/a", "/nowhere", "/healthz"]) {
      const { headers } = await fetch(`${cluster.url}${path}`);
      assert.equal(headers.get("x-content-type-options"), "nosniff");
      assert.equal(headers.get("cross-origin-resource-policy"), "same-origin");
      assert.match(headers.get("content-security-policy") ?? "", /default-src 'none'.*sandbox/);
    }
    for (const method of ["TRACE", "TRACK", "PATCH", "PROPFIND"]) {
      const { status, text } = await ask(cluster.url, [
        `${method} /jobs HTTP/1.1`,
        `Host: ${host}`,
      ]);
      // Node's parser does not know TRACK.
      assert.equal(status, method === "TRACK" ? 400 : 405, text);
      assert.doesNotMatch(text, /^Host: /m);
    }
  });

  it("has masters that answer no page either", async () => {
    const { address } = (await cluster.client.json("/leader")) as { address: string };
    for (const [headers, status] of [
      [[], 200],
      [["Origin: http://evil.example"], 403],
      [[`Origin: http://${address}`], 403],
      [["Sec-Fetch-Site: same-origin"], 403],
    ] as [string[], number][]) {
      const path = "/mapreduce.v1.JobService/List";
      const lines = [`POST ${path} HTTP/1.1`, `Host: ${address}`, "Content-Type: application/json"];
      const answer = await ask(`http://${address}`, [...lines, ...headers], "{}");
      assert.equal(answer.status, status, answer.text);
    }
  });
});

/** What a page of somebody else's tries; the proxy's address is put in. */
const ATTACK = (proxy: string, request: object) => `<!doctype html><title>harmless</title>
<form id="form" method="post" enctype="text/plain" action="${proxy}/request" target="frame">
<input name='${JSON.stringify(request).slice(0, -1)},"env":{"x":"' value='"}}'></form>
<iframe name="frame"></iframe>
<script>
const body = ${JSON.stringify(JSON.stringify(request))};
const tries = [
  () => fetch("${proxy}/request", { method: "POST", mode: "no-cors", body }),
  () => fetch("${proxy}/request", { method: "POST", body }),
  () => fetch("${proxy}/request", { method: "POST", mode: "no-cors", body: new Blob([body]) }),
  () => fetch("${proxy}/storage/text/a", { method: "DELETE" }),
  () => fetch("${proxy}/storage/text/a").then((answer) => answer.text()).then((text) => { window.read = text; }),
  () => navigator.sendBeacon("${proxy}/request", body),
  () => new Promise((resolve) => {
    const script = document.createElement("script");
    script.onload = () => { window.loaded = true; resolve(); };
    script.onerror = resolve;
    script.src = "${proxy}/storage/text/script.js";
    document.body.append(script);
  }),
  () => document.getElementById("form").submit(),
];
(async () => {
  for (const one of tries) try { await one(); } catch {}
  window.done = true;
})();
</script>`;

describe("a browser on the machine of a proxy", () => {
  let cluster: TestCluster;
  let browser: Awaited<ReturnType<typeof useBrowser>>;
  let marker: string;
  before(async () => {
    cluster = await useCluster({ workers: 1 });
    browser = await useBrowser();
    marker = join(cluster.dir, "was-here");
    await putText(cluster.client, "text", "a", "a\n");
    await putText(cluster.client, "text", "script.js", "window.stolen = 1");
    await putText(
      cluster.client,
      "text",
      "page.html",
      "<script>document.title = 'ran'</script><h1>hello</h1>",
    );
  });
  after(async () => {
    await browser[Symbol.asyncDispose]();
    await cluster[Symbol.asyncDispose]();
  });

  const request = () => ({ mapper: `/bin/touch ${marker}`, data: "text", r_num: 0 });

  async function open(url: string): Promise<Page> {
    const page = await browser.browser.newPage();
    await page.goto(url);
    return page;
  }

  /** Serves the page, and takes what it sends; the same page against a server that does not care. */
  async function visited(target: (own: string) => string) {
    const heard: string[] = [];
    let own = "";
    const server = createServer((req, res) => {
      heard.push(`${req.method} ${req.url}`);
      if (req.url !== "/") return void res.end("{}");
      res.setHeader("content-type", "text/html").end(ATTACK(target(own), request()));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    own = `http://127.0.0.1:${port}`;
    const page = await open(`http://evil.test:${port}/`);
    await page.waitForFunction("window.done");
    await page.waitForLoadState("networkidle");
    const got = await page.evaluate("({ read: window.read, loaded: window.loaded })");
    await page.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    return { heard, got: got as { read?: string; loaded?: boolean } };
  }

  it("sends what a page asks for, to whoever takes it", async () => {
    const { heard } = await visited((own) => own);
    const posts = heard.filter((line) => line === "POST /request").length;
    assert.ok(posts >= 5, heard.join("\n"));
  });

  it("starts nothing here, reads nothing and deletes nothing for a page of others", async () => {
    const { got } = await visited(() => cluster.url);
    assert.deepEqual(got, { read: undefined, loaded: undefined });
    const { jobs } = await cluster.client.json<{ jobs: unknown[] }>("/jobs");
    assert.deepEqual(jobs, []);
    assert.equal(existsSync(marker), false);
    assert.equal(await (await cluster.client.fetch("/storage/text/a")).text(), "a\n");
  });

  it("is told no by a name that was made to lead here", async () => {
    const { port } = new URL(cluster.url);
    const page = await open(`http://rebound.test:${port}/jobs`);
    assert.match((await page.textContent("body")) ?? "", /not known by the name rebound\.test/);
    await page.close();
  });

  it("shows a person what was asked for, and runs nothing that users have made", async () => {
    const page = await open(`${cluster.url}/jobs`);
    assert.match((await page.textContent("body")) ?? "", /"jobs":\[/);
    const download = page.waitForEvent("download");
    await page.goto(`${cluster.url}/storage/text/page.html`).catch(() => undefined);
    assert.equal((await download).suggestedFilename(), "page.html");
    await page.close();
    await cluster.client.fetch("/storage/dfs-scripts/html.sh", {
      method: "PUT",
      body: "#!/bin/sh\necho '<script>document.title = \"ran\"</script>' >&2\ncat\n",
    });
    const job = { mapper: "html.sh", data: "text/a", r_num: 0 };
    const id = await until("a job with a log", async () => {
      for await (const { state, id } of cluster.client.run(job, AbortSignal.timeout(30_000)))
        if (state === "succeeded") return id;
      return undefined;
    });
    const { tasks } = await cluster.client.json<{
      tasks: { id: string; attempts: { id: string }[] }[];
    }>(`/jobs/${id}/tasks`);
    const log = `/jobs/${id}/tasks/m-00000/attempts/${tasks[0]?.attempts[0]?.id}/log`;
    const shown = await open(`${cluster.url}${log}`);
    assert.match((await shown.textContent("body")) ?? "", /<script>/);
    assert.notEqual(await shown.title(), "ran");
    await shown.close();
  });
});
