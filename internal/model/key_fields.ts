/**
 * Key fields as Hadoop's KeyFieldBasedPartitioner and -Comparator name them:
 * `-k POS1[,POS2]` where a position is FIELD[.CHAR][nr], both counted from 1. In
 * POS2 a CHAR of 0 (or none) is the field's last one. -n: numeric, -r: reverse;
 * alone they hold for all fields that have no letter of their own.
 */
export interface KeyField {
  startField: number;
  startChar: number;
  /** 0: to the end of the key. */
  endField: number;
  endChar: number;
  numeric: boolean;
  reverse: boolean;
}

const SPEC = /^(\d{1,6})(?:\.(\d{1,6}))?([nr]*)(?:,(\d{1,6})(?:\.(\d{1,6}))?([nr]*))?$/;
const OPTIONS_MAX = 1_000;
const FORM = "-k POS1[,POS2], -n, -r or -nr are expected, POS as FIELD[.CHAR][nr]";

/** @returns the fields in order, or what is wrong. Without any -k: one field, the whole key. */
export function parseKeyFields(options: string): KeyField[] | string {
  if (options.length > OPTIONS_MAX) return `at most ${OPTIONS_MAX} characters`;
  const words = options.split(/\s+/).filter((word) => word !== "");
  const fields: KeyField[] = [];
  const all = { numeric: false, reverse: false };
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (/^-(n|r|nr|rn)$/.test(word)) {
      all.numeric ||= word.includes("n");
      all.reverse ||= word.includes("r");
      continue;
    }
    if (!word.startsWith("-k")) return `${word}: ${FORM}`;
    const text = word === "-k" ? (words.shift() ?? "") : word.slice(2);
    const field = parseField(text);
    if (field === undefined) return `-k ${text}: ${FORM}`;
    fields.push(field);
  }
  const whole = { startField: 1, startChar: 1, endField: 0, endChar: 0 };
  if (fields.length === 0) fields.push({ ...whole, numeric: false, reverse: false });
  return fields.map((field) => (field.numeric || field.reverse ? field : { ...field, ...all }));
}

function parseField(text: string): KeyField | undefined {
  const match = SPEC.exec(text);
  if (match === null) return undefined;
  const [, startField, startChar = "1", before, endField = "0", endChar = "0", after = ""] = match;
  const letters = before + after;
  const field = {
    startField: Number(startField),
    startChar: Number(startChar),
    endField: Number(endField),
    endChar: Number(endChar),
    numeric: letters.includes("n"),
    reverse: letters.includes("r"),
  };
  return field.startField < 1 || field.startChar < 1 ? undefined : field;
}
