import { type MessagePort, parentPort } from "node:worker_threads";
import { messageOf } from "../model/errors.ts";
import { type Assignment, newProgress } from "../model/task.ts";
import type { FromSlot, ToSlot } from "./slot_protocol.ts";
import { failedResult } from "./task_context.ts";
import type { TaskRunner } from "./task_runner.ts";

const PROGRESS_MS = 500;

/** The far end of a slot: runs on the slot's thread, one attempt at a time. */
export function serveSlot(runner: TaskRunner): void {
  if (parentPort === null) throw new Error("a slot runs on a thread of its own");
  const port: MessagePort = parentPort;
  let stop: { attempt: string; controller: AbortController } | undefined;
  port.on("message", (message: ToSlot) => {
    if (message.kind === "stop") {
      if (stop?.attempt === message.attempt) stop.controller.abort();
      return;
    }
    const assignment = withBuffers(message.assignment);
    const controller = new AbortController();
    stop = { attempt: assignment.attempt, controller };
    void runOne(runner, assignment, controller.signal, port);
  });
}

async function runOne(
  runner: TaskRunner,
  assignment: Assignment,
  signal: AbortSignal,
  port: MessagePort,
): Promise<void> {
  const { attempt } = assignment;
  const progress = newProgress();
  const say = (message: FromSlot) => port.postMessage(message);
  const timer = setInterval(() => say({ kind: "progress", attempt, progress }), PROGRESS_MS);
  try {
    const result = await runner.run(assignment, signal, progress);
    say({ kind: "finished", attempt, result });
  } catch (error) {
    const message = `the slot failed: ${messageOf(error)}`;
    say({ kind: "finished", attempt, result: failedResult("infra", message) });
  } finally {
    clearInterval(timer);
  }
}

/** On its way from another thread a Buffer has become a plain Uint8Array, which searches otherwise. */
function withBuffers(assignment: Assignment): Assignment {
  const { input } = assignment;
  if (input.kind === "map" || input.keys === undefined) return assignment;
  const [from, to] = [input.keys.from, input.keys.to].map(
    (bytes) => bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length),
  );
  return { ...assignment, input: { ...input, keys: { from, to } } };
}
