import { type Builtin, builtinReducer } from "../model/builtins.ts";
import { MrError } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import type { TaskInput } from "../model/task.ts";
import { OUTPUT } from "../shuffle/kernel/functions.ts";
import { mergedPairs } from "../shuffle/merge.ts";
import { eachPair, type SortedPairs } from "../shuffle/sorted_pairs.ts";
import { BuiltinReducer } from "../streaming/builtins/builtin_reducer.ts";
import { type PartWriter, partWriter } from "./part_writer.ts";
import { findSegments } from "./segment_reader.ts";
import {
  committed,
  feedPairs,
  runScript,
  stagePart,
  type TaskContext,
  type TaskMade,
} from "./task_context.ts";

type ReduceTaskInput = Extract<TaskInput, { kind: "reduce" }>;

/** One segment of every map output -> merge -> script -> a staged part. */
export async function runReduceTask(context: TaskContext): Promise<TaskMade> {
  const { input } = context.assignment;
  if (input.kind !== "reduce") throw new MrError("internal", "not a reduce task");
  await failurePoint("worker.reduce.before-read");
  const pairs = pairsOfReduce(context, input);
  const staged = await stagePart(context);
  return committed(staged, async () => {
    const part = partWriter(context, staged, context.contract.reduceOutput);
    context.stats.recordsIn = await reduce(context, pairs, part);
    await part.end();
    await failurePoint("worker.reduce.before-seal");
    const receipt = await staged.seal();
    await failurePoint("worker.reduce.after-seal");
    return { output: { kind: "part", receipt } };
  });
}

/** The pairs of a reduce task in order, from all map outputs; looked for when they are wanted. */
export function pairsOfReduce(context: TaskContext, input: ReduceTaskInput): SortedPairs {
  return {
    async give(as, take, blockBytes) {
      const { assignment, order, spill } = context;
      await using early = await context.early?.take(assignment.job.id, input.partition);
      const segments = await findSegments(context, input, early?.runs);
      return await mergedPairs(segments, order, spill, input.keys).give(as, take, blockBytes);
    },
  };
}

/** @returns how many pairs were reduced. */
async function reduce(context: TaskContext, pairs: SortedPairs, part: PartWriter): Promise<number> {
  const builtin = builtinReducer(context.assignment.job.command);
  if (builtin !== undefined) return reduceWithout(context, builtin, pairs, part);
  let records = 0;
  await runScript(context, {
    role: "reduce",
    feed: async (script) => {
      records = await feedPairs(context, pairs, script);
    },
    onOutput: part.push,
  });
  return records;
}

const OUTPUT_BYTES = 64 * 1024;

/** Without a script: by a built-in reducer. */
async function reduceWithout(
  context: TaskContext,
  name: Builtin,
  pairs: SortedPairs,
  part: PartWriter,
): Promise<number> {
  const { signal, contract } = context;
  const write = (chunk: Uint8Array) => {
    signal.throwIfAborted();
    return part.push(chunk);
  };
  if (name === "identity") return pairs.give(OUTPUT.lines, write);
  const between = Buffer.from(contract.reduceOutput.separator);
  const lf = Buffer.from("\n");
  let lines: Buffer[] = [];
  let bytes = 0;
  const reducer = new BuiltinReducer({
    name,
    role: "reduce",
    separatorBytes: Buffer.byteLength(contract.reduceInput.separator),
    emit(key, value) {
      lines.push(key, between, value, lf);
      bytes += key.length + value.length;
      return bytes >= OUTPUT_BYTES;
    },
    async flush() {
      await write(Buffer.concat(lines));
      [lines, bytes] = [[], 0];
    },
  });
  const records = await eachPair(pairs, reducer);
  await reducer.end();
  return records;
}
