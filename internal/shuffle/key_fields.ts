import type { KeyField } from "../model/key_fields.ts";

/** The bytes [start, end) of one field of a key; undefined where the key has no such field. */
export type FieldRange = { start: number; end: number } | undefined;

/** Finds the bytes that a field description means, as Hadoop's KeyFieldHelper does. */
export class FieldFinder {
  private readonly separator: Buffer;

  constructor(separator: string) {
    this.separator = Buffer.from(separator);
  }

  find(bytes: Buffer, start: number, end: number, field: KeyField): FieldRange {
    const first = this.startOf(bytes, start, end, field.startField);
    if (first < 0 || first + field.startChar > end) return undefined;
    return { start: first + field.startChar - 1, end: this.endOf(bytes, start, end, field) };
  }

  private endOf(bytes: Buffer, start: number, end: number, field: KeyField): number {
    if (field.endField === 0) return end;
    const last = this.startOf(bytes, start, end, field.endField);
    if (last < 0) return end;
    if (field.endChar > 0) return Math.min(end, last + field.endChar);
    const stop = this.next(bytes, last, end);
    return stop < 0 ? end : stop;
  }

  /** Where a field begins, counted from 1; -1: there are not so many. */
  private startOf(bytes: Buffer, start: number, end: number, field: number): number {
    let at = start;
    for (let i = 1; i < field; i += 1) {
      const stop = this.next(bytes, at, end);
      if (stop < 0) return -1;
      at = stop + this.separator.length;
    }
    return at;
  }

  private next(bytes: Buffer, from: number, end: number): number {
    const { separator } = this;
    if (separator.length === 1) {
      const byte = separator[0];
      for (let i = from; i < end; i += 1) if (bytes[i] === byte) return i;
      return -1;
    }
    const found = bytes.subarray(from, end).indexOf(separator);
    return found < 0 ? -1 : from + found;
  }
}
