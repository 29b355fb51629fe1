import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { ByteBudget } from "../../internal/rpc/byte_budget.ts";
import { SessionRequestSchema } from "../../internal/rpc/gen/mapreduce/v1/worker_pb.ts";
import { FrameReader } from "../../internal/rpc/grpc_frames.ts";
import { countFields } from "../../internal/rpc/message_shape.ts";
import {
  fieldsMax,
  workerMessageFromWire,
  workerMessageToWire,
} from "../../internal/rpc/session_conversions.ts";
import { until } from "../support/processes.ts";

const MB = 1024 * 1024;
const ATTEMPT = "20260101-000000-aaaaaa/m-00000/1-1";
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

const fields = (message: Parameters<typeof workerMessageToWire>[0]) => {
  const bytes = toBinary(SessionRequestSchema, workerMessageToWire(message));
  return countFields(SessionRequestSchema, bytes, 1e9);
};

describe("what a worker says", () => {
  it("is counted with all that is in it", () => {
    assert.equal(fields({ kind: "goodbye" }), 1);
    const counters = { a: 1, b: 2 };
    const entry = { attempt: ATTEMPT, bytesIn: 5, bytesTotal: 6, status: "s", counters };
    // The oneof, its number, the attempt, its four figures, and two counters of three each.
    assert.equal(fields({ kind: "heartbeat", seq: 1, attempts: [entry] }), 1 + 1 + 1 + 4 + 2 * 3);
    const unknown = Buffer.alloc(200, Buffer.from([0x78, 0x00]));
    assert.equal(countFields(SessionRequestSchema, unknown, 1e9), 100);
    assert.equal(countFields(SessionRequestSchema, unknown, 7), 8);
    assert.throws(() => countFields(SessionRequestSchema, Buffer.from([0x0b]), 10), /group/);
  });

  it("fits, however much an honest one has to say", () => {
    for (const slots of [1, 4, 64, 3_000]) {
      const counters = Object.fromEntries(
        Array.from({ length: 200 }, (_, i) => [`a group,the counter ${i}`, i + 1]),
      );
      const entry = { attempt: ATTEMPT, bytesIn: 5, bytesTotal: 6, status: "s", counters };
      const attempts = Array(8 * slots).fill(entry);
      const beat = { kind: "heartbeat" as const, seq: 1, attempts };
      assert.ok(fields(beat) <= fieldsMax(slots), `${slots}: ${fields(beat)}`);
      const wire = workerMessageToWire(beat);
      assert.equal(workerMessageFromWire(wire, slots)?.kind, "heartbeat");
      const worker = { id: "w", host: "h", pid: 1, slots, reducesPerSlot: 1 };
      const hello = { kind: "hello" as const, worker, attempts: Array(8 * slots).fill(ATTEMPT) };
      assert.ok(fields(hello) <= fieldsMax(0), `${slots}: ${fields(hello)}`);
      const failed = { attempt: ATTEMPT, class: "user" as const, message: "m", logTail: "l" };
      const lostOutputs = Array(10_000).fill(ATTEMPT);
      assert.ok(fields({ kind: "failed", ...failed, lostOutputs }) <= fieldsMax(slots));
    }
  });

  it("is kept without what was cut off", async () => {
    const long = () => Buffer.alloc(MB, "x").toString();
    const heard: unknown[] = [];
    const hear = (message: MessageInitShape<typeof SessionRequestSchema>) => {
      const bytes = toBinary(SessionRequestSchema, create(SessionRequestSchema, message));
      heard.push(workerMessageFromWire(fromBinary(SessionRequestSchema, bytes), 1));
    };
    const heldBytes = () => {
      collect();
      const { heapUsed, external, arrayBuffers } = process.memoryUsage();
      return heapUsed + external - arrayBuffers;
    };
    const beforeBytes = heldBytes();
    for (let i = 0; i < 20; i += 1) {
      const entry = { attempt: ATTEMPT, status: long(), counters: { [long()]: 1n } };
      hear({ message: { case: "heartbeat", value: { attempts: [entry] } } });
      const failed = { attempt: ATTEMPT, class: "user", message: long(), logTail: long() };
      hear({ message: { case: "failed", value: failed } });
    }
    await until("what was cut off to be let go", () => heldBytes() - beforeBytes < 10 * MB);
    assert.equal(heard.length, 40);
  });
});

describe("half of a message", () => {
  it("is held by itself, not with all that was read with it", async () => {
    const trickle = (reader: FrameReader) => {
      reader.read(Buffer.from([0, 0, 1, 0, 0]));
      for (let i = 0; i < 200; i += 1) reader.read(Buffer.alloc(256 * 1024).subarray(7, 8));
    };
    collect();
    const { arrayBuffers } = process.memoryUsage();
    const reader = new FrameReader(MB);
    trickle(reader);
    await until("what was read to be let go", () => {
      collect();
      return process.memoryUsage().arrayBuffers - arrayBuffers < 5 * MB;
    });
    assert.ok(reader.isWaiting);
    // Each piece costs more than its byte.
    using share = new ByteBudget(20_000).open(0);
    assert.throws(() => trickle(new FrameReader(MB, share)), /too much is held/);
  });
});
