import type { DescMessage } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { MrError } from "../model/errors.ts";

/** Of the fields of a message that are messages: what is in them. */
type Within = ReadonlyMap<number, Within>;

const NOTHING: Within = new Map();
const known = new WeakMap<DescMessage, Within>();

/** Of types that do not contain themselves. */
function withinOf(schema: DescMessage): Within {
  let within = known.get(schema);
  if (within === undefined) {
    const found = new Map<number, Within>();
    for (const field of schema.fields)
      if (field.fieldKind === "map") found.set(field.number, NOTHING);
      else if (field.message !== undefined) found.set(field.number, withinOf(field.message));
    within = found;
    known.set(schema, within);
  }
  return within;
}

/** The shortest field: a tag, and a value of one byte. */
const FIELD_BYTES_MIN = 2;

/**
 * Whether a message has more fields than that. Most need not be looked into: they are too short.
 * @throws MrError `invalid` where it is no message.
 */
export function hasMoreFields(schema: DescMessage, bytes: Uint8Array, most: number): boolean {
  return bytes.length > FIELD_BYTES_MIN * most && countFields(schema, bytes, most) > most;
}

/**
 * How many fields an encoded message has, with those of the messages in it, known or not: each
 * becomes an object, or several, so that a message costs by them more than by its bytes.
 * @returns no more than one beyond `most`.
 * @throws MrError `invalid` where it is no message.
 */
export function countFields(schema: DescMessage, bytes: Uint8Array, most: number): number {
  const reader = new BinaryReader(bytes);
  let count = 0;
  const read = (within: Within, end: number) => {
    while (reader.pos < end && count <= most) {
      const [number, type] = reader.tag();
      count += 1;
      if (type === WireType.StartGroup) throw new MrError("invalid", "a message with a group");
      const inner = type === WireType.LengthDelimited ? within.get(number) : undefined;
      if (inner === undefined) reader.skip(type, number);
      else read(inner, reader.uint32() + reader.pos);
    }
  };
  read(withinOf(schema), bytes.length);
  return count;
}
