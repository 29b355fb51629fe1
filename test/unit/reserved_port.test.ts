import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import { describe, it } from "node:test";
import { type ReservedPort, reservePort } from "../../cmd/mr/reserved_port.ts";

async function isReserved(number: number): Promise<boolean> {
  const mark = createSocket("udp4");
  try {
    mark.bind({ port: number, address: "127.0.0.1", exclusive: true });
    await once(mark, "listening");
    return false;
  } catch {
    return true;
  } finally {
    mark.close();
  }
}

const RESERVES = `
  import { reservePort } from ${JSON.stringify(new URL("../../cmd/mr/reserved_port.ts", import.meta.url).href)};
  process.on("disconnect", () => process.exit());
  process.send((await reservePort()).number);
`;

describe("a reserved port", () => {
  it("is nobody else's until it is given back", async () => {
    const ports: ReservedPort[] = [];
    for (let i = 0; i < 300; i += 1) ports.push(await reservePort());
    assert.equal(new Set(ports.map(({ number }) => number)).size, ports.length);
    const [first] = ports;
    assert.ok(first !== undefined && (await isReserved(first.number)));
    for (const port of ports) port[Symbol.dispose]();
    assert.equal(await isReserved(first.number), false);
  });

  it("can be listened on, again and again", async () => {
    using port = await reservePort();
    for (let life = 0; life < 3; life += 1) {
      const server = createServer();
      await once(server.listen(port.number, "127.0.0.1"), "listening");
      server.close();
      await once(server, "close");
    }
  });

  it("is given back by a process that is killed", async () => {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", RESERVES], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    const ended = once(child, "exit");
    const [number] = (await Promise.race([once(child, "message"), ended])) as [number];
    assert.equal(await isReserved(number), true);
    child.kill("SIGKILL");
    assert.deepEqual(await ended, [null, "SIGKILL"]);
    assert.equal(await isReserved(number), false);
  });
});
