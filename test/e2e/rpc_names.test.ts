import assert from "node:assert/strict";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { describe, it } from "node:test";
import { useCluster } from "../support/cluster.ts";

const HEALTH = "/grpc.health.v1.Health/Check";

/** The status of an answer to a POST by HTTP/1. */
async function http1(port: number, head: string[]): Promise<string | undefined> {
  const socket = connect(port, "127.0.0.1");
  const [first, ...more] = head;
  const lines = [`POST ${HEALTH} ${first}`, ...more, "content-type: application/json"];
  socket.write(`${lines.join("\r\n")}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}`);
  return /^HTTP\/1\.\d (\d+)/.exec(await text(socket))?.[1];
}

async function http2(port: number, headers: Record<string, string>): Promise<string> {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  try {
    const body = { ":method": "POST", ":path": HEALTH, "content-type": "application/json" };
    const stream = session.request({ ...body, ...headers });
    stream.end("{}");
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    stream.once("response", (answer) => resolve(String(answer[":status"])));
    for (const each of [stream, session]) each.once("error", reject);
    return await promise.catch(() => "reset");
  } finally {
    session.destroy();
  }
}

describe("the name that a master is asked by", () => {
  it("is nobody's business, and no name ends the process", async () => {
    await using cluster = await useCluster({ workers: 1 });
    const leader = () =>
      cluster.client.json<{ address: string; pid: number; epoch: number }>("/leader");
    const before = await leader();
    const port = Number(before.address.split(":")[1]);
    const hosts = ["master:1", "::1", "[::1", "[", "a b", "%", "#", "http://x", "x:99999", "@"];
    for (const host of hosts) {
      assert.equal(await http1(port, ["HTTP/1.1", `host: ${host}`]), "200", host);
      assert.match(await http2(port, { ":authority": host }), /^(200|reset)$/, host);
    }
    assert.equal(await http1(port, ["HTTP/1.0"]), "200");
    assert.equal(await http2(port, { host: "[" }), "200");
    assert.equal(await http2(port, {}), "200");
    const { pid, epoch } = await leader();
    assert.deepEqual([pid, epoch], [before.pid, before.epoch]);
  });
});
