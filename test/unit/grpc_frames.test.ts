import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { JobView } from "../../internal/model/job.ts";
import { parseJobRequest } from "../../internal/model/job_request.ts";
import { jobToMessage } from "../../internal/rpc/conversions.ts";
import { WatchResponseSchema } from "../../internal/rpc/gen/mapreduce/v1/job_pb.ts";
import { SessionResponseSchema } from "../../internal/rpc/gen/mapreduce/v1/worker_pb.ts";
import { FrameReader, FrameWriter } from "../../internal/rpc/grpc_frames.ts";
import { encodeMasterMessage, encodeView } from "../../internal/rpc/message_encoding.ts";
import { masterMessageToWire } from "../../internal/rpc/session_conversions.ts";

describe("gRPC frames", () => {
  it("come out as they went in, however they are cut, one piece a turn", async () => {
    const messages = [0, 1, 5, 70_000, 3].map((bytes, at) => Buffer.alloc(bytes, at + 1));
    const wire = new PassThrough({ highWaterMark: 1 << 20 });
    const writer = new FrameWriter(wire);
    for (const message of messages) writer.write(message);
    await Promise.resolve();
    const all = wire.read() as Buffer;
    assert.equal(wire.read(), null);
    for (const step of [1, 4, 5, 6, 16_384, all.length]) {
      const reader = new FrameReader(100_000);
      const heard: Buffer[] = [];
      for (let at = 0; at < all.length; at += step)
        heard.push(...reader.read(all.subarray(at, at + step)));
      assert.deepEqual(heard, messages, `in steps of ${step}`);
    }
  });

  it("that are too long, or compressed, are refused", () => {
    assert.throws(() => new FrameReader(3).read(Buffer.from([0, 0, 0, 0, 4])), /too long/);
    assert.throws(() => new FrameReader(3).read(Buffer.from([1, 0, 0, 0, 1])), /compressed/);
  });
});

describe("a grant on the wire", () => {
  it("says the same whether or not its job was encoded before", () => {
    const job = {
      id: "20261122-140512-k3f9x2",
      name: "n",
      command: "cat",
      combiner: "",
      partitioner: "",
      outputFormat: "",
      sortValues: false,
      files: ["a.txt"],
      scripts: { "a.py": "1" },
      env: { A: "b" },
      conf: {},
      maps: 3,
      reduces: 2,
      output: "dfs-dest/x",
      badRecordsMax: 0,
      badOutput: "dfs-dest/x/_bad",
      network: true,
    };
    const range = {
      container: "c",
      name: "n",
      etag: "e",
      start: 2 ** 40,
      length: 5,
      size: 2 ** 41,
    };
    for (const attempt of ["1-1", "1-2"]) {
      const input = { kind: "map" as const, split: [range], narrow: false };
      const id = `${job.id}/m-00000/${attempt}`;
      const message = { kind: "grant" as const, assignment: { attempt: id, job, input } };
      assert.deepEqual(
        fromBinary(SessionResponseSchema, encodeMasterMessage(message)),
        fromBinary(
          SessionResponseSchema,
          toBinary(SessionResponseSchema, masterMessageToWire(message)),
        ),
      );
    }
  });
});

describe("a view on the wire", () => {
  it("is encoded once for all that are told", () => {
    const phase = { done: 1, total: 2, running: 1, bytesDone: 3, bytesTotal: 4, records: 5 };
    const spec = parseJobRequest({ mapper: "cat", data: "text", env: { A: "b" } });
    const job: JobView = {
      ...{
        id: "20261122-140512-k3f9x2",
        state: "map",
        owner: "alice",
        spec,
        map: phase,
        shuffle: phase,
      },
      ...{ reduce: phase, submittedAtMs: 1, startedAtMs: 2, finishedAtMs: 0, counters: { c: 1 } },
      ...{ output: "dfs-dest/x", error: undefined, lastError: undefined, attemptsFailed: 0 },
      ...{ attemptsLost: 0, badRecords: 0, steps: [] },
    };
    for (const withSpec of [true, false]) {
      const message = encodeView(job, withSpec);
      assert.deepEqual(
        fromBinary(WatchResponseSchema, toBinary(WatchResponseSchema, message)),
        create(WatchResponseSchema, { job: jobToMessage(job, withSpec) }),
      );
      assert.equal(encodeView(job, withSpec), message);
    }
  });
});
