import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Role } from "../../internal/model/certificates.ts";
import { admits, type Peer } from "../../internal/rpc/tls.ts";

const PEERS: Record<string, Peer> = {
  nobody: undefined,
  unknown: new Set<Role>(),
  master: new Set<Role>(["master"]),
  worker: new Set<Role>(["worker"]),
  proxy: new Set<Role>(["proxy"]),
};

describe("who may ask a master what", () => {
  const may: [url: string, who: string[]][] = [
    ["/grpc.health.v1.Health/Check", Object.keys(PEERS)],
    ["/grpc.health.v1.Health/Watch", Object.keys(PEERS)],
    ["/mapreduce.v1.WorkerService/Session", ["worker"]],
    ["/mapreduce.v1.JobService/Submit", ["proxy"]],
    ["/mapreduce.v1.JobService/GetAssignment", ["proxy"]],
    ["/mapreduce.v1.JobService/Get?connect=v1", ["proxy"]],
    ["/mapreduce.v1.ClusterService/GetLeader", ["master", "worker", "proxy"]],
    ["/mapreduce.v1.ClusterService/ListWorkers", ["proxy"]],
    ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ["master", "worker", "proxy"]],
  ];
  for (const [url, who] of may)
    it(`${url}: ${who.join(", ")}`, () => {
      for (const [name, peer] of Object.entries(PEERS))
        assert.equal(admits(url, peer), who.includes(name), name);
    });

  it("anything that is no service's method: nobody", () => {
    for (const url of [
      "",
      "/",
      "*",
      "/grpc.health.v1.Health/../mapreduce.v1.JobService/Submit",
      "/grpc.health.v1.Health/%2e%2e/mapreduce.v1.JobService/Submit",
      "/grpc.health.v1.Health//mapreduce.v1.JobService/Submit",
      "/grpc.health.v1.Health/Check/mapreduce.v1.JobService/Submit",
      "/grpc.health.v1.Health/Check\n/mapreduce.v1.JobService/Submit",
      "/grpc.health.v1.HealthX/Check",
      "//mapreduce.v1.JobService/Submit",
      "/mapreduce.v1.JobService/Submit/",
      "/MAPREDUCE.V1.JOBSERVICE/Submit",
      "http://master/mapreduce.v1.JobService/Submit",
      "/constructor/toString",
      "/__proto__/x",
    ])
      for (const [name, peer] of Object.entries(PEERS))
        assert.equal(admits(url, peer), false, `${JSON.stringify(url)} as ${name}`);
  });
});
