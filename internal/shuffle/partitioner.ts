import type { Contract } from "../model/contract.ts";
import type { KeyField } from "../model/key_fields.ts";
import { FieldFinder } from "./key_fields.ts";

/** The partition of the key bytes[start, end). */
export type PartitionOf = (bytes: Buffer, start: number, end: number) => number;

/** All is one partition, it is found by Hadoop's hash of the whole key, or by a function of ours. */
export type Partitioner = { kind: "one" | "hadoop" } | { kind: "host"; of: PartitionOf };

/** The partitioner of a job. Ranges are cut only when all maps are done: until then all is one. */
export function partitionerOf(
  contract: Pick<Contract, "partitioner" | "fieldSeparator">,
  partitions: number,
): Partitioner {
  const { partitioner, fieldSeparator } = contract;
  if (partitioner.kind === "range" || partitions === 1) return { kind: "one" };
  if (partitioner.kind === "hash") return { kind: "hadoop" };
  const { fields } = partitioner;
  const finder = new FieldFinder(fieldSeparator);
  const of: PartitionOf = (bytes, start, end) =>
    fields === undefined
      ? modulo(textHash(bytes.toString("utf8", start, end)), partitions)
      : modulo(fieldHash(finder, fields, bytes, start, end), partitions);
  return { kind: "host", of };
}

/** Hadoop's KeyFieldBasedPartitioner: h = 31 h + signed byte in 32 bits, from what came before. */
function hashBytes(bytes: Uint8Array, start: number, end: number, before: number): number {
  let hash = before;
  for (let i = start; i < end; i += 1)
    hash = (Math.imul(hash, 31) + (((bytes[i] as number) << 24) >> 24)) | 0;
  return hash;
}

function fieldHash(
  finder: FieldFinder,
  fields: KeyField[],
  bytes: Buffer,
  start: number,
  end: number,
): number {
  let hash = 0;
  for (const field of fields) {
    const range = finder.find(bytes, start, end, field);
    if (range !== undefined) hash = hashBytes(bytes, range.start, range.end, hash);
  }
  return hash;
}

/** Java's String.hashCode, over UTF-16 units. */
function textHash(text: string): number {
  let hash = 0;
  for (let i = 0; i < text.length; i += 1) hash = (Math.imul(hash, 31) + text.charCodeAt(i)) | 0;
  return hash;
}

function modulo(hash: number, partitions: number): number {
  return (hash & 0x7fffffff) % partitions;
}
