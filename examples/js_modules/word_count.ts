/** Counts words: mapper, combiner and reducer in one file, for --mapper and --reducer. */
import type { CombineFunction, MapFunction, ReduceFunction } from "./mr.d.ts";

const WORD = /[\p{L}\p{N}]+/gu;

export const map: MapFunction = (line, emit) => {
  for (const word of line.toLowerCase().match(WORD) ?? []) emit(word, 1);
};

export const reduce: ReduceFunction = (word, counts, emit) => {
  let sum = 0;
  for (const count of counts) sum += Number(count);
  emit(word, sum);
};

export const combine: CombineFunction = reduce;
