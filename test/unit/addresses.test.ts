import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  hostPort,
  isIpv6,
  isLoopback,
  listenHost,
  splitHostPort,
} from "../../internal/model/addresses.ts";

describe("HOST:PORT", () => {
  for (const [host, port, joined] of [
    ["10.0.0.12", 50_051, "10.0.0.12:50051"],
    ["fd00::12", 50_051, "[fd00::12]:50051"],
    ["::1", "80", "[::1]:80"],
    ["::", 80, "[::]:80"],
    ["master-0.master", 50_051, "master-0.master:50051"],
  ] as const)
    it(`${joined} is put together, taken apart, and part of a URL`, () => {
      assert.equal(hostPort(host, port), joined);
      assert.deepEqual(splitHostPort(joined), { host, port: String(port) });
      const url = new URL(`http://${joined}/x`);
      assert.equal(url.hostname, isIpv6(host) ? `[${host}]` : host);
    });

  it("has its brackets once", () => {
    assert.equal(hostPort("[::1]", 80), "[::1]:80");
  });

  for (const bad of ["master", "", ":80", "master:", "master:http", "[]:80", "[::1]", "[::1:80"])
    it(`is not what this is: '${bad}'`, () => {
      assert.equal(splitHostPort(bad), undefined);
    });

  it("tells what only this machine can reach", () => {
    for (const host of ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
      assert.ok(isLoopback(host), host);
    for (const host of ["0.0.0.0", "::", "10.0.0.1", "fd00::1", "localhost.example.org"])
      assert.ok(!isLoopback(host), host);
  });

  it("leaves both families to Node", () => {
    assert.equal(listenHost("::"), "");
    for (const host of ["0.0.0.0", "::1", "fd00::1", "127.0.0.1"])
      assert.equal(listenHost(host), host);
  });
});
