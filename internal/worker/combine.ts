import { type Builtin, builtinReducer } from "../model/builtins.ts";
import { OUTPUT } from "../shuffle/kernel/functions.ts";
import { LineNormalizer } from "../shuffle/lines.ts";
import { type Combine, PairSorter } from "../shuffle/pair_sorter.ts";
import { eachPair } from "../shuffle/sorted_pairs.ts";
import { BuiltinReducer } from "../streaming/builtins/builtin_reducer.ts";
import { feedPairs, pairsOf, runScript, type TaskContext } from "./task_context.ts";

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
  return async (pairs, writer) => {
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
        return writer.add(1, key.length, line, 0, length);
      },
      flush: () => writer.flush(),
    });
    await eachPair(pairs, reducer);
    await reducer.end();
  };
}

/** A share of the sort memory is enough for what a combiner leaves over. */
const SORT_SHARE = 4;

/** One run of the script for each partition. What it prints is sorted again: it may print as it likes. */
function scriptCombiner(context: TaskContext): Combine {
  const { contract, options, spill } = context;
  const given = {
    ...pairsOf(context, contract.reduceOutput),
    partitions: 1,
    partitioner: { kind: "one" as const },
    sortBytes: Math.max(1, Math.floor(options.sortBytes / SORT_SHARE)),
  };
  return async (pairs, writer) => {
    using sorter = new PairSorter(given, spill);
    const lines = new LineNormalizer();
    await runScript(context, {
      role: "combine",
      feed: async (script) => {
        await feedPairs(context, pairs, script);
      },
      onOutput: (chunk) => sorter.push(lines.push(chunk)),
    });
    await sorter.push(lines.end());
    await sorter.end();
    await sorter.each(async (sorted) => {
      await sorted.give(OUTPUT.records, (block) => writer.putBlock(block), writer.blockBytes);
    });
  };
}
