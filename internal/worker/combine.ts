import { type Builtin, builtinReducer } from "../model/builtins.ts";
import { LineNormalizer } from "../shuffle/lines.ts";
import { type Combine, PairSorter } from "../shuffle/pair_sorter.ts";
import { BuiltinReducer } from "../streaming/builtins/builtin_reducer.ts";
import { feedPairs, pairLines, runScript, type TaskContext } from "./task_context.ts";

/** The job's combiner, if it has one. */
export function combinerOfTask(context: TaskContext): Combine | undefined {
  const { combiner } = context.assignment.job;
  if (combiner === "") return undefined;
  const builtin = builtinReducer(combiner);
  if (builtin === undefined) return scriptCombiner(context);
  return builtin === "identity" ? undefined : builtinCombiner(context, builtin);
}

function builtinCombiner(context: TaskContext, name: Exclude<Builtin, "identity">): Combine {
  const separator = Buffer.from(context.contract.reduceInput.separator);
  let line = Buffer.allocUnsafe(4096);
  return async (feed, sink) => {
    const reducer = new BuiltinReducer({
      name,
      role: "combine",
      separatorBytes: separator.length,
      emit(key, value) {
        const length = key.length + separator.length + value.length;
        if (line.length < length) line = Buffer.allocUnsafe(length * 2);
        line.set(key, 0);
        line.set(separator, key.length);
        line.set(value, key.length + separator.length);
        return sink.add(1, key.length, line, 0, length);
      },
      flush: () => sink.flush(),
    });
    await feed(reducer);
    await reducer.end();
  };
}

/** A share of the sort memory is enough for what a combiner leaves over. */
const SORT_SHARE = 4;

/** One run of the script for each partition. What it prints is sorted again: it may print as it likes. */
function scriptCombiner(context: TaskContext): Combine {
  const { contract, options, order, spill } = context;
  const sortBytes = Math.max(1, Math.floor(options.sortBytes / SORT_SHARE));
  return async (feed, sink) => {
    const sorter = new PairSorter({ partitions: 1, partitionOf: () => 0, order, sortBytes }, spill);
    const pairs = pairLines(context, contract.reduceOutput, sorter);
    const lines = new LineNormalizer();
    await runScript(context, {
      role: "combine",
      feed: async (script) => {
        await feedPairs(context, feed, script);
      },
      onOutput: (chunk) => pairs.push(lines.push(chunk)),
    });
    await pairs.push(lines.end());
    await pairs.end();
    await sorter.feed(sink);
  };
}
