import type { Contract } from "../model/contract.ts";
import type { KeyField } from "../model/key_fields.ts";
import { FieldFinder } from "./key_fields.ts";

/**
 * Compares two lines, each a key of `keyBytes` at its start and the rest. Lines
 * that it holds for equal may come in any order.
 */
export type CompareLines = (
  a: Buffer,
  aStart: number,
  aKeyBytes: number,
  aEnd: number,
  b: Buffer,
  bStart: number,
  bKeyBytes: number,
  bEnd: number,
) => number;

export type CompareBytes = (
  a: Buffer,
  aStart: number,
  aEnd: number,
  b: Buffer,
  bStart: number,
  bEnd: number,
) => number;

/** How the lines of a partition are ordered. */
export interface LineOrder {
  compare: CompareLines;
  /** The same for keys alone. */
  compareKeys: CompareBytes;
  /** Nothing comes before the unsigned bytes of the key: prefixes of keys may be compared first. */
  byBytes: boolean;
  /** Lines of one key are in order too: equal keys alone settle nothing. */
  values: boolean;
}

/**
 * @param values lines of one key are put in byte order too.
 * Keys that the comparator holds for equal are told apart by their bytes, so that
 * all lines of one key stand together whatever the comparator.
 */
export function lineOrder(
  { comparator, fieldSeparator }: Pick<Contract, "comparator" | "fieldSeparator">,
  values: boolean,
): LineOrder {
  const byKey = values ? compareWhole : compareKeys;
  if (comparator === undefined)
    return { compare: byKey, compareKeys: compareBytes, byBytes: true, values };
  const byFields = fieldOrder(comparator, new FieldFinder(fieldSeparator));
  const compare: CompareLines = (a, aStart, aKey, aEnd, b, bStart, bKey, bEnd) =>
    byFields(a, aStart, aStart + aKey, b, bStart, bStart + bKey) ||
    byKey(a, aStart, aKey, aEnd, b, bStart, bKey, bEnd);
  const keys: CompareBytes = (a, aStart, aEnd, b, bStart, bEnd) =>
    byFields(a, aStart, aEnd, b, bStart, bEnd) || compareBytes(a, aStart, aEnd, b, bStart, bEnd);
  return { compare, compareKeys: keys, byBytes: false, values };
}

const compareBytes: CompareBytes = (a, aStart, aEnd, b, bStart, bEnd) =>
  a.compare(b, bStart, bEnd, aStart, aEnd);

const compareKeys: CompareLines = (a, aStart, aKey, _aEnd, b, bStart, bKey, _bEnd) =>
  a.compare(b, bStart, bStart + bKey, aStart, aStart + aKey);

const compareWhole: CompareLines = (a, aStart, aKey, aEnd, b, bStart, bKey, bEnd) =>
  a.compare(b, bStart, bStart + bKey, aStart, aStart + aKey) ||
  a.compare(b, bStart + bKey, bEnd, aStart + aKey, aEnd);

/** KeyFieldBasedComparator: field by field; a key that lacks one comes first (last in reverse). */
function fieldOrder(fields: KeyField[], finder: FieldFinder): CompareBytes {
  return (a, aStart, aEnd, b, bStart, bEnd) => {
    for (const field of fields) {
      const x = finder.find(a, aStart, aEnd, field);
      const y = finder.find(b, bStart, bEnd, field);
      if (x === undefined && y === undefined) continue;
      let order: number;
      if (x === undefined) order = -1;
      else if (y === undefined) order = 1;
      else if (field.numeric) order = compareNumbers(a, x.start, x.end, b, y.start, y.end);
      else
        order = a.compare(b, y.start, Math.max(y.start, y.end), x.start, Math.max(x.start, x.end));
      if (order !== 0) return field.reverse ? -order : order;
    }
    return 0;
  };
}

const MINUS = 45;
const DOT = 46;
const ZERO = 48;

/** Decimal numbers of any length, as `sort -n` sees them: what is no digit ends one; none is 0. */
const compareNumbers: CompareBytes = (a, aStart, aEnd, b, bStart, bEnd) => {
  const x = readNumber(a, aStart, aEnd);
  const y = readNumber(b, bStart, bEnd);
  if (x.negative !== y.negative) return x.negative ? -1 : 1;
  const size =
    x.point - x.start - (y.point - y.start) ||
    a.compare(b, y.start, y.point, x.start, x.point) ||
    a.compare(b, y.fraction, y.end, x.fraction, x.end);
  return x.negative ? -size : size;
};

/** Digits [start, point) without leading zeros, and [fraction, end) without trailing ones. */
interface NumberRange {
  negative: boolean;
  start: number;
  point: number;
  fraction: number;
  end: number;
}

function readNumber(bytes: Buffer, from: number, to: number): NumberRange {
  const negative = from < to && bytes[from] === MINUS;
  let start = negative ? from + 1 : from;
  while (start < to && bytes[start] === ZERO) start += 1;
  const point = endOfDigits(bytes, start, to);
  let fraction = point;
  let end = point;
  if (point < to && bytes[point] === DOT) {
    fraction = point + 1;
    end = endOfDigits(bytes, fraction, to);
    while (end > fraction && bytes[end - 1] === ZERO) end -= 1;
  }
  const zero = point === start && end === fraction;
  return { negative: negative && !zero, start, point, fraction, end };
}

function endOfDigits(bytes: Buffer, from: number, to: number): number {
  let at = from;
  while (at < to && (bytes[at] as number) >= ZERO && (bytes[at] as number) <= ZERO + 9) at += 1;
  return at;
}
