import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  GetRequestSchema,
  GetResponseSchema,
  type JobSpecSchema,
  SubmitRequestSchema,
} from "../../internal/rpc/gen/mapreduce/v1/job_pb.ts";
import { runJob, type TestCluster } from "../support/cluster.ts";
import { HostileCluster } from "../support/hostile_cluster.ts";
import { until } from "../support/processes.ts";
import { head, quietly, RawCall } from "../support/raw_rpc.ts";

const MB = 1024 * 1024;
const JOBS = "/mapreduce.v1.JobService";
const CLUSTER = "/mapreduce.v1.ClusterService";
const HEALTH = "/grpc.health.v1.Health";
const SESSION = "/mapreduce.v1.WorkerService/Session";
const INVALID = "3";
const NOT_FOUND = "5";
const TOO_MANY = "8";
const UNIMPLEMENTED = "12";

describe("a leader and a peer that means ill", () => {
  let hostile: HostileCluster;
  let cluster: TestCluster;
  let leader: HostileCluster["leader"];
  before(async () => {
    hostile = await HostileCluster.start();
    ({ cluster, leader } = hostile);
  });
  after(() => hostile[Symbol.asyncDispose]());

  /** A master answers whoever asks briefly. */
  async function isHealthy(): Promise<void> {
    using call = new RawCall(leader.address, `${HEALTH}/Check`);
    assert.equal(await call.ask(Buffer.alloc(0)), "0");
  }

  it("is asked no more than a method needs", async () => {
    // Fields that nobody knows, of two bytes each.
    const noise = (bytes: number) => Buffer.alloc(bytes, Buffer.from([0x78, 0x00]));
    const limits: [path: string, bytes: number][] = [
      [`${HEALTH}/Check`, 1024],
      [`${HEALTH}/Watch`, 1024],
      [`${CLUSTER}/GetLeader`, 1024],
      [`${CLUSTER}/ListWorkers`, 256 * 1024],
      [`${JOBS}/Get`, 1024],
      [`${JOBS}/Cancel`, 1024],
      [`${JOBS}/Watch`, 1024],
      [`${JOBS}/ListTasks`, 1024],
      [`${JOBS}/GetAssignment`, 1024],
      [`${JOBS}/List`, 256 * 1024],
      [`${JOBS}/Count`, 256 * 1024],
      [`${JOBS}/Submit`, 640 * 1024],
    ];
    for (const [path, bytes] of limits) {
      for (const length of [bytes + 8, 15 * MB]) {
        using call = new RawCall(leader.address, path);
        assert.equal(await call.ask(noise(length)), TOO_MANY, `${path}: ${length}`);
        assert.match(call.message, new RegExp(`${bytes} bytes`), path);
      }
    }
    using reflection = new RawCall(
      leader.address,
      "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    );
    assert.equal(await reflection.ask(noise(2_000)), TOO_MANY);
    await hostile.staysAsItWas();
  });

  it("is asked no more in JSON", async () => {
    const long = JSON.stringify({ spec: { name: "n".repeat(700 * 1024) } });
    using unary = new RawCall(leader.address, `${JOBS}/Submit`, {
      headers: { "content-type": "application/json" },
    });
    unary.stream.end(long);
    assert.equal(await unary.status, "HTTP 429");
    const response = await fetch(`http://${leader.address}${HEALTH}/Check`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ service: "s".repeat(2_000) }),
    });
    assert.equal(response.status, 429);
    await hostile.staysAsItWas();
  });

  it("is asked with no more parts than a request has", async () => {
    // Fields that nobody knows; steps that say nothing; commas.
    const noise = Buffer.alloc(400 * 1024, Buffer.from([0x78, 0x00]));
    const steps = Buffer.alloc(390 * 1024, Buffer.from([0xaa, 0x01, 0x00]));
    const length = [0x0a, 0x80 | (steps.length & 127), 0x80 | ((steps.length >> 7) & 127)];
    const spec = Buffer.concat([Buffer.from([...length, steps.length >> 14]), steps]);
    for (const message of [noise, spec]) {
      using call = new RawCall(leader.address, `${JOBS}/Submit`);
      assert.equal(await call.ask(message), TOO_MANY);
      assert.match(call.message, /at most 50000 parts/);
    }
    const files = `{"spec":{"files":[${'"",'.repeat(60_000)}""]}}`;
    const response = await fetch(`http://${leader.address}${JOBS}/Submit`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: files,
    });
    assert.match(((await response.json()) as { message: string }).message, /at most 50000 parts/);
    await hostile.staysAsItWas();
  });

  it("unpacks nothing", async () => {
    const packed = gzipSync(Buffer.alloc(600 * 1024));
    using call = new RawCall(leader.address, `${JOBS}/Submit`, {
      headers: { "grpc-encoding": "gzip" },
    });
    assert.equal(await call.ask(packed, 1), UNIMPLEMENTED);
    const response = await fetch(`http://${leader.address}${JOBS}/Submit`, {
      method: "POST",
      headers: { "content-type": "application/json", "content-encoding": "gzip" },
      body: gzipSync("{}"),
    });
    assert.equal(((await response.json()) as { code: string }).code, "unimplemented");
    await hostile.staysAsItWas();
  });

  it("holds no more of halves of requests than it has set aside", async () => {
    const beforeMb = hostile.memoryMb();
    const half = Buffer.alloc(600 * 1024);
    const connections = Array.from({ length: 4 }, () => quietly(leader.address));
    const calls = Array.from({ length: 400 }, (_, i) => {
      const call = new RawCall(leader.address, `${JOBS}/Submit`, {
        connection: connections[i % connections.length],
      });
      call.stream.write(head(640 * 1024));
      call.stream.write(half);
      return call;
    });
    let refused = 0;
    for (const call of calls)
      void call.status.then((status) => {
        if (status === TOO_MANY) refused += 1;
      });
    await until("refusals", () => refused >= 300);
    await isHealthy();
    assert.ok(hostile.memoryMb() - beforeMb < 250, `${beforeMb} -> ${hostile.memoryMb()} MB`);
    for (const connection of connections) connection.destroy();
    await hostile.staysAsItWas();
  });

  it("waits for the rest of a request for a while", async () => {
    const connection = quietly(leader.address);
    const late = [`${JOBS}/Submit`, `${HEALTH}/Check`, `${JOBS}/Watch`].map((path) => {
      const call = new RawCall(leader.address, path, { connection });
      call.stream.write(head(1_000));
      call.stream.write(Buffer.alloc(10));
      return call;
    });
    for (const call of late) {
      assert.equal(await call.status, INVALID);
      assert.match(call.message, /does not end/);
    }
    connection.destroy();
  });

  it("serves sessions in plain gRPC alone, and with a deadline like any other", async () => {
    const types = ["application/grpc-web+proto", "application/connect+proto", "application/json"];
    for (const type of [...types, "application/grpc+json"]) {
      using call = new RawCall(leader.address, SESSION, { headers: { "content-type": type } });
      assert.equal(await call.status, "HTTP 415", type);
    }
    using call = new RawCall(leader.address, SESSION, { headers: { "grpc-timeout": "60S" } });
    call.stream.write(head(3 * MB));
    assert.equal(await call.status, INVALID);
    assert.match(call.message, /^session: a message too long/);
    await hostile.staysAsItWas();
  });

  it("says what is wrong in few words", async () => {
    const connection = quietly(leader.address);
    const ask = async (method: string, message: Uint8Array) => {
      const call = new RawCall(leader.address, `${JOBS}/${method}`, { connection });
      return [await call.ask(message), call.message];
    };
    const strange = "\u001b[2J\u202e".repeat(100);
    const id = toBinary(GetRequestSchema, create(GetRequestSchema, { id: strange }));
    for (const method of ["Get", "Cancel", "Watch", "ListTasks"])
      assert.deepEqual(await ask(method, id), [NOT_FOUND, "no job has such an id"], method);
    assert.deepEqual(await ask("GetAssignment", id), [NOT_FOUND, "no attempt has such an id"]);
    const submit = (spec: MessageInitShape<typeof JobSpecSchema>) =>
      ask(
        "Submit",
        toBinary(
          SubmitRequestSchema,
          create(SubmitRequestSchema, { spec: { data: "text", ...spec } }),
        ),
      );
    const name = (i: number) => `${"n".repeat(50)}-${i}`;
    const files = Array.from({ length: 5_000 }, (_, i) => name(i));
    const env = Object.fromEntries(
      files.slice(0, 400).map((key) => [`${key} ${"\u4e2d".repeat(20)}`, ""]),
    );
    const steps = Array.from({ length: 40 }, (_, i) => {
      return { mapper: "cat", files: files.slice(100 * i, 100 * i + 100) };
    });
    const long = { [" ".repeat(20_000)]: "" };
    for (const spec of [
      { steps },
      { mapper: "cat", env },
      { mapper: "cat", conf: long },
      { mapper: "m".repeat(100_000) },
      { mapper: "cat", data: `text/${"[".repeat(50_000)}` },
      { mapper: "cat", output: `text/${"\u4e2d".repeat(50_000)}` },
    ]) {
      const [status] = await submit(spec);
      assert.equal(status, INVALID, JSON.stringify(spec).slice(0, 100));
    }
    assert.ok(!connection.destroyed, "the connection that all share was lost");
    connection.destroy();
    // By the proxy, all faults but the first hundred are counted as one.
    const response = await fetch(`${cluster.url}/request`, {
      method: "POST",
      body: JSON.stringify({ data: "text", steps }),
    });
    const { errors } = (await response.json()) as { errors: { message: string }[] };
    assert.equal(response.status, 400);
    assert.equal(errors.length, 101, JSON.stringify(errors.slice(0, 3)));
    assert.match(errors.at(-1)?.message ?? "", /^and more/);
    await hostile.staysAsItWas();
  });

  it("does not take what it does not know", async () => {
    const json = async (method: string, body: object) => {
      const response = await fetch(`http://${leader.address}${JOBS}/${method}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      return ((await response.json()) as { code?: string }).code;
    };
    const spec = { mapper: "cat", data: "text", r_num: 0 };
    assert.equal(await json("Submit", { spec: { ...spec, max_attemptz: 3 } }), "invalid_argument");
    assert.equal(await json("Submit", { spec, ownr: "me" }), "invalid_argument");
    assert.equal(await json("List", { limitt: 3 }), "invalid_argument");
    assert.equal(await json("List", { limit: 3 }), undefined);
    const request = create(SubmitRequestSchema, { spec: { mapper: "cat", data: "text", rNum: 0 } });
    const known = toBinary(SubmitRequestSchema, request);
    using call = new RawCall(leader.address, `${JOBS}/Submit`);
    assert.equal(await call.ask(Buffer.concat([known, Buffer.from([0x78, 0x00])])), INVALID);
    for (const type of ["application/grpc+json", "application/grpc-web+json"]) {
      using framed = new RawCall(leader.address, `${JOBS}/Get`, {
        headers: { "content-type": type },
      });
      assert.equal(await framed.ask(Buffer.from('{"\\ud800": 1}')), "HTTP 415");
    }
    await hostile.staysAsItWas();
  });

  it("lets a job be followed in JSON as in the binary form", async () => {
    const { id } = await runJob(cluster.client, { mapper: "cat", data: "text", r_num: 0 });
    const asked = Buffer.from(JSON.stringify({ id }));
    const response = await fetch(`http://${leader.address}${JOBS}/Watch`, {
      method: "POST",
      headers: { "content-type": "application/connect+json" },
      body: Buffer.concat([head(asked.length), asked]),
    });
    assert.match(await response.text(), /"JOB_STATE_SUCCEEDED".*"mapper":"cat"/s);
    using call = new RawCall(leader.address, `${JOBS}/Watch`);
    await call.ask(toBinary(GetRequestSchema, create(GetRequestSchema, { id })));
    const answer = fromBinary(GetResponseSchema, Buffer.concat(call.answer).subarray(5));
    assert.equal(answer.job?.spec?.mapper, "cat");
  });

  it("is understood however what is said is cut", async () => {
    const body = "{}";
    const request = [
      `POST ${HEALTH}/Check HTTP/1.1`,
      "host: x",
      "connection: close",
      "content-type: application/json",
      `content-length: ${body.length}`,
      "",
      body,
    ].join("\r\n");
    const port = Number(leader.address.split(":").at(-1));
    for (const cut of [1, 2, 20]) {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      socket.on("error", () => undefined);
      const heard = text(socket);
      socket.write(request.slice(0, cut));
      // A segment of its own.
      await delay(100);
      socket.write(request.slice(cut));
      assert.match(await heard, /^HTTP\/1.1 200 [\s\S]*SERVING/, `after ${cut}`);
    }
    // HTTP/2: its preface and settings are answered with settings.
    const opening = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
    for (const cut of [1, 5, 12]) {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      socket.write(opening.subarray(0, cut));
      await delay(100);
      socket.write(opening.subarray(cut));
      const [answer] = (await once(socket, "data")) as [Buffer];
      assert.equal(answer[3], 4, `after ${cut}`);
      socket.destroy();
    }
  });
});
