import { type MessagePort, parentPort } from "node:worker_threads";
import { messageOf } from "../model/errors.ts";
import type { AttemptId } from "../model/ids.ts";
import { type Assignment, newProgress } from "../model/task.ts";
import type { FromSlot, ToSlot } from "./slot_protocol.ts";
import { failedResult } from "./task_context.ts";
import type { TaskRunner } from "./task_runner.ts";

const PROGRESS_MS = 500;

/** The far end of a slot: runs on the slot's thread. */
export function serveSlot(runner: TaskRunner): void {
  if (parentPort === null) throw new Error("a slot runs on a thread of its own");
  const port: MessagePort = parentPort;
  const running = new Map<AttemptId, AbortController>();
  const begin = (assignment: Assignment) => {
    const { attempt } = assignment;
    const controller = new AbortController();
    running.set(attempt, controller);
    void runOne(runner, assignment, controller.signal, port).finally(() => running.delete(attempt));
  };
  runner.onInputRead = (attempt) => port.postMessage({ kind: "fed", attempt } satisfies FromSlot);
  port.on("message", (message: ToSlot) => {
    switch (message.kind) {
      case "run":
        return begin(withBuffers(message.assignment));
      case "stop":
        return running.get(message.attempt)?.abort();
      case "expect":
        return runner.expect(message.assignment);
      case "unexpect":
        return runner.unexpect(message.attempt);
      case "prefetch":
        return hint(runner.early.add(message.early));
      case "forget":
        return hint(runner.early.forget(message.job));
    }
  });
}

/** Nothing rests on it: a disk that is full, say, is the next attempt's to report. */
function hint(done: Promise<void>): void {
  done.catch(() => undefined);
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
