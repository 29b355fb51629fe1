import type { PlanRecord } from "../model/records.ts";
import type { Split } from "../model/task.ts";

/**
 * Ranges in one stored record; a split without any counts as one. A name has at most 1,024
 * characters of 3 bytes: even then a record is far below what a transaction may hold.
 */
export const RANGES_PER_RECORD = 150;

/** The splits of a plan as records, in order. One split may take several, many may share one. */
export function* planRecords(splits: Split[]): Generator<PlanRecord> {
  let record: PlanRecord = { first: 0, splits: [] };
  let room = RANGES_PER_RECORD;
  for (const [index, split] of splits.entries()) {
    let from = 0;
    do {
      if (room === 0) {
        yield record;
        record = { first: index, splits: [] };
        room = RANGES_PER_RECORD;
      }
      const ranges = split.slice(from, from + room);
      record.splits.push(ranges);
      from += ranges.length;
      room -= Math.max(1, ranges.length);
    } while (from < split.length);
  }
  if (record.splits.length > 0) yield record;
}

/** The reverse. Undefined where a record is missing or they do not make exactly `maps` splits. */
export function splitsOf(
  records: (PlanRecord | undefined)[],
  { maps, records: count }: { maps: number; records: number },
): Split[] | undefined {
  const splits: Split[] = [];
  for (let index = 0; index < count; index += 1) {
    const record = records[index];
    if (record === undefined) return undefined;
    const { first, splits: found } = record;
    const isNext = first === splits.length;
    const goesOn = index > 0 && first === splits.length - 1;
    if (!isNext && !goesOn) return undefined;
    found.forEach((ranges, offset) => {
      if (goesOn && offset === 0) splits[first]?.push(...ranges);
      else splits.push(ranges);
    });
  }
  return splits.length === maps ? splits : undefined;
}
