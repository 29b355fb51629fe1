import type { BenchCase } from "../bench_case.ts";
import { moduleMapper, sum } from "./combining.ts";
import { byMaps, bySize } from "./growth.ts";
import { distinct, hotKeyDistinct, hotKeySame } from "./keys.ts";
import { latency } from "./latency.ts";
import { mapOnlyJob, small } from "./map_side.ts";
import { sort } from "./sort.ts";
import { wordCountLarge, wordCountSmall } from "./word_count.ts";

/** In the order in which they run: what is over soon first. */
export const CASES: BenchCase[] = [
  latency,
  small,
  mapOnlyJob,
  moduleMapper,
  distinct,
  hotKeySame,
  hotKeyDistinct,
  sort,
  wordCountSmall,
  sum,
  wordCountLarge,
  bySize,
  byMaps,
];
