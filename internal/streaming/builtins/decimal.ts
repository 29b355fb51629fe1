/**
 * Exact decimal numbers. Sums of binary floats depend on their order, and the order of
 * values inside a key is nobody's to choose: so decimals are added as they are written,
 * and a sum is the same however its parts were combined.
 */
export interface Decimal {
  digits: bigint;
  /** The value is digits / 10 ** scale. */
  scale: number;
}

const NUMBER = /^[+-]?(?:(\d+)\.?(\d*)|\.(\d+))(?:[eE]([+-]?\d{1,4}))?$/;
/** A number of more digits than a double can tell of is a slip, or an attack. */
const EXPONENT_MAX = 400;
const LENGTH_MAX = 1_000;
/** Sums, which have no exponent, are read again after a combiner: they may be longer than what was summed. */
const PLAIN_LENGTH_MAX = 4_000;

/** A whole number of at most 15 digits in bytes[start, end); NaN for everything else. */
export function smallInteger(bytes: Uint8Array, start: number, end: number): number {
  const negative = bytes[start] === 45;
  const first = negative ? start + 1 : start;
  if (end - first < 1 || end - first > 15) return Number.NaN;
  let value = 0;
  for (let i = first; i < end; i += 1) {
    const digit = (bytes[i] as number) - 48;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
  }
  return negative ? -value : value;
}

/** @returns undefined where the text is no decimal number. */
export function parseDecimal(text: string): Decimal | undefined {
  const trimmed = text.trim();
  const lengthMax = /e/i.test(trimmed) ? LENGTH_MAX : PLAIN_LENGTH_MAX;
  const match = trimmed.length > lengthMax ? null : NUMBER.exec(trimmed);
  if (match === null) return undefined;
  const [, whole = "", fraction = match[3] ?? "", , exponent = "0"] = match;
  const shift = Number(exponent);
  if (Math.abs(shift) > EXPONENT_MAX) return undefined;
  const digits = BigInt(`${whole}${fraction}`) * (trimmed.startsWith("-") ? -1n : 1n);
  const scale = fraction.length - shift;
  return scale >= 0 ? { digits, scale } : { digits: digits * power(-scale), scale: 0 };
}

export function addDecimals(a: Decimal, b: Decimal): Decimal {
  const scale = Math.max(a.scale, b.scale);
  return { digits: raised(a, scale) + raised(b, scale), scale };
}

export function compareDecimals(a: Decimal, b: Decimal): number {
  const scale = Math.max(a.scale, b.scale);
  const difference = raised(a, scale) - raised(b, scale);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/** The one way to write a number: no exponent, no zeros that say nothing. */
export function decimalText({ digits, scale }: Decimal): string {
  const negative = digits < 0n;
  const text = (negative ? -digits : digits).toString().padStart(scale + 1, "0");
  const whole = text.slice(0, text.length - scale);
  const fraction = text.slice(text.length - scale).replace(/0+$/, "");
  return `${negative ? "-" : ""}${whole}${fraction === "" ? "" : `.${fraction}`}`;
}

function raised({ digits, scale }: Decimal, to: number): bigint {
  return to === scale ? digits : digits * power(to - scale);
}

function power(exponent: number): bigint {
  return 10n ** BigInt(exponent);
}

/** Adds numbers; whole ones of common size without a BigInt. */
export class ExactSum {
  private small = 0;
  private rest: Decimal = { digits: 0n, scale: 0 };

  /** @returns false where the bytes are no number. */
  add(bytes: Buffer, start: number, end: number, count: number): boolean {
    const value = smallInteger(bytes, start, end) * count;
    if (Math.abs(value) <= Number.MAX_SAFE_INTEGER) {
      const sum = this.small + value;
      if (Math.abs(sum) <= Number.MAX_SAFE_INTEGER) {
        this.small = sum;
        return true;
      }
    }
    const decimal = parseDecimal(bytes.toString("latin1", start, end));
    if (decimal === undefined) return false;
    const { digits, scale } = decimal;
    this.rest = addDecimals(this.rest, { digits: digits * BigInt(count), scale });
    return true;
  }

  get value(): Decimal {
    return addDecimals(this.rest, { digits: BigInt(this.small), scale: 0 });
  }

  toString(): string {
    return this.rest.digits === 0n ? String(this.small) : decimalText(this.value);
  }
}
