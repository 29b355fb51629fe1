import { MrError } from "../../model/errors.ts";
import { compareDecimals, type Decimal, ExactSum, parseDecimal, smallInteger } from "./decimal.ts";
import { javaDouble } from "./java_double.ts";

/** Takes the values of one key and gives what is left of them. */
export interface Fold {
  /**
   * @param count how often the value occurs.
   * @param emit takes what is known to be in the result already.
   * @returns false where the value is not one that can be folded.
   */
  add(bytes: Buffer, start: number, end: number, count: number, emit: EmitValue): boolean;
  end(emit: EmitValue): void;
}
export type EmitValue = (value: Buffer) => void;

/** combine: the result is folded again; reduce: it is the last word. */
export type Role = "combine" | "reduce";

type NewFold = (role: Role) => Fold;

/** The plain names. */
export const PLAIN_FOLDS: Record<string, NewFold> = {
  sum: () => new Sum(String),
  count: () => new Count(),
  min: () => new Extreme(-1, numberOrder),
  max: () => new Extreme(1, numberOrder),
  distinct: () => new Distinct(),
};

/** The value prefixes of Hadoop's aggregate package. */
export const AGGREGATE_FOLDS: Record<string, NewFold> = {
  LongValueSum: () => new LongSum(),
  DoubleValueSum: (role) =>
    new Sum((sum) => (role === "combine" ? sum.toString() : javaDouble(Number(sum.toString())))),
  LongValueMax: () => new Extreme(1, longOrder),
  LongValueMin: () => new Extreme(-1, longOrder),
  StringValueMax: () => new Extreme(1, byteOrder),
  StringValueMin: () => new Extreme(-1, byteOrder),
  UniqValueCount: (role) => (role === "combine" ? new Distinct() : new CountDistinct()),
  ValueHistogram: (role) => new Histogram(role),
};

class Sum implements Fold {
  private readonly sum = new ExactSum();
  private readonly write: (sum: ExactSum) => string;

  constructor(write: (sum: ExactSum) => string) {
    this.write = write;
  }

  add(bytes: Buffer, start: number, end: number, count: number): boolean {
    return this.sum.add(bytes, start, end, count);
  }

  end(emit: EmitValue): void {
    emit(Buffer.from(this.write(this.sum)));
  }
}

const LONG = /^[+-]?\d{1,19}$/;

/** In 64 bits, as Java's long: beyond them it wraps. */
class LongSum implements Fold {
  private small = 0;
  private rest = 0n;

  add(bytes: Buffer, start: number, end: number, count: number): boolean {
    const sum = this.small + smallInteger(bytes, start, end) * count;
    if (Math.abs(sum) <= Number.MAX_SAFE_INTEGER) {
      this.small = sum;
      return true;
    }
    const value = longOf(bytes, start, end);
    if (value === undefined) return false;
    this.rest = BigInt.asIntN(64, this.rest + value * BigInt(count));
    return true;
  }

  end(emit: EmitValue): void {
    emit(Buffer.from(BigInt.asIntN(64, this.rest + BigInt(this.small)).toString()));
  }
}

function longOf(bytes: Buffer, start: number, end: number): bigint | undefined {
  const text = bytes.toString("latin1", start, end);
  if (!LONG.test(text)) return undefined;
  const value = BigInt(text.replace("+", ""));
  return BigInt.asIntN(64, value) === value ? value : undefined;
}

class Count implements Fold {
  private count = 0;

  add(_bytes: Buffer, _start: number, _end: number, count: number): boolean {
    this.count += count;
    return true;
  }

  end(emit: EmitValue): void {
    emit(Buffer.from(String(this.count)));
  }
}

/** What a value is compared by; undefined: it has no place in the order. */
interface Order<T> {
  read(bytes: Buffer, start: number, end: number): T | undefined;
  compare(a: T, b: T): number;
}

const numberOrder: Order<number | Decimal> = {
  read(bytes, start, end) {
    const small = smallInteger(bytes, start, end);
    return Number.isNaN(small) ? parseDecimal(bytes.toString("latin1", start, end)) : small;
  },
  compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return compareDecimals(decimalOf(a), decimalOf(b));
  },
};

function decimalOf(value: number | Decimal): Decimal {
  return typeof value === "number" ? { digits: BigInt(value), scale: 0 } : value;
}

const longOrder: Order<bigint> = {
  read: longOf,
  compare: (a, b) => (a < b ? -1 : a > b ? 1 : 0),
};

const byteOrder: Order<null> = { read: () => null, compare: () => 0 };

/** The largest (sign 1) or smallest (-1) value, as it was written; of equal ones the one by bytes. */
class Extreme<T> implements Fold {
  private readonly sign: number;
  private readonly order: Order<T>;
  private best: { value: T; text: Buffer } | undefined;

  constructor(sign: number, order: Order<T>) {
    this.sign = sign;
    this.order = order;
  }

  add(bytes: Buffer, start: number, end: number): boolean {
    const value = this.order.read(bytes, start, end);
    if (value === undefined) return false;
    const { best } = this;
    const order =
      best === undefined
        ? 1
        : this.sign * this.order.compare(value, best.value) ||
          this.sign * bytes.compare(best.text, 0, best.text.length, start, end);
    if (order > 0) this.best = { value, text: Buffer.from(bytes.subarray(start, end)) };
    return true;
  }

  end(emit: EmitValue): void {
    if (this.best !== undefined) emit(this.best.text);
  }
}

/** Each value once. They come in order, so that equal ones stand together. */
class Distinct implements Fold {
  protected last: Buffer | undefined;

  add(bytes: Buffer, start: number, end: number, _count: number, emit: EmitValue): boolean {
    const { last } = this;
    if (last !== undefined && bytes.compare(last, 0, last.length, start, end) === 0) return true;
    this.last = Buffer.from(bytes.subarray(start, end));
    emit(this.last);
    return true;
  }

  end(_emit: EmitValue): void {}
}

class CountDistinct extends Distinct {
  private count = 0;

  override add(bytes: Buffer, start: number, end: number, count: number): boolean {
    return super.add(bytes, start, end, count, () => {
      this.count += 1;
    });
  }

  override end(emit: EmitValue): void {
    emit(Buffer.from(String(this.count)));
  }
}

const TAB = 9;

/** Values `TEXT` or `TEXT TAB N`: how often each text occurs, and what is to be said of that. */
/** What the texts of one key may take, and what each takes beside its own characters. */
const HISTOGRAM_BYTES_MAX = 96 * 1024 * 1024;
const HISTOGRAM_ENTRY_BYTES = 100;

class Histogram implements Fold {
  private readonly role: Role;
  private readonly counts = new Map<string, number>();
  private bytes = 0;

  constructor(role: Role) {
    this.role = role;
  }

  add(bytes: Buffer, start: number, end: number, count: number): boolean {
    const tab = bytes.subarray(start, end).lastIndexOf(TAB);
    const times = tab < 0 ? 1 : smallInteger(bytes, start + tab + 1, end);
    if (Number.isNaN(times)) return false;
    // latin1 keeps every byte as it is.
    const text = bytes.toString("latin1", start, tab < 0 ? end : start + tab);
    const before = this.counts.get(text);
    if (before === undefined) this.countText(text);
    this.counts.set(text, (before ?? 0) + times * count);
    return true;
  }

  end(emit: EmitValue): void {
    if (this.role === "reduce") return emit(Buffer.from(this.report()));
    const lines = [...this.counts].map(([text, n]) => Buffer.from(`${text}\t${n}`, "latin1"));
    for (const line of lines.toSorted(Buffer.compare)) emit(line);
  }

  /** All of them are kept until the key ends: they come in no order that would do without. */
  private countText(text: string): void {
    this.bytes += text.length + HISTOGRAM_ENTRY_BYTES;
    if (this.bytes > HISTOGRAM_BYTES_MAX)
      throw new MrError("user", "aggregate: a ValueHistogram has more different values than fit");
  }

  /** Number of texts, then minimum, median, maximum, mean and standard deviation of their counts. */
  private report(): string {
    const counts = [...this.counts.values()].toSorted((a, b) => a - b);
    const { length } = counts;
    const mean = counts.reduce((sum, count) => sum + count, 0) / length;
    const spread = counts.reduce((sum, count) => sum + (count - mean) * (count - mean), 0);
    const [min, median, max] = [counts[0], counts[Math.floor(length / 2)], counts[length - 1]];
    const deviation = Math.sqrt(spread / length);
    return [length, min, median, max, javaDouble(mean), javaDouble(deviation)].join("\t");
  }
}
