import type { Contract } from "../model/contract.ts";
import type { KeyField } from "../model/key_fields.ts";
import { FieldFinder } from "./key_fields.ts";

/** The partition of the key bytes[start, end). */
export type PartitionOf = (bytes: Buffer, start: number, end: number) => number;

/** The partitioner of a job. Ranges are cut only when all maps are done: until then all is one. */
export function partitionerOf(
  contract: Pick<Contract, "partitioner" | "fieldSeparator">,
  partitions: number,
): PartitionOf {
  const { partitioner, fieldSeparator } = contract;
  if (partitioner.kind === "range" || partitions === 1) return () => 0;
  if (partitioner.kind === "hash")
    return (bytes, start, end) => modulo(hashBytes(bytes, start, end, 1), partitions);
  const { fields } = partitioner;
  if (fields === undefined)
    return (bytes, start, end) => modulo(textHash(bytes.toString("utf8", start, end)), partitions);
  const finder = new FieldFinder(fieldSeparator);
  return (bytes, start, end) => modulo(fieldHash(finder, fields, bytes, start, end), partitions);
}

/**
 * Hadoop's WritableComparator.hashBytes: h = 31 h + signed byte in 32 bits; it
 * begins with 1, KeyFieldBasedPartitioner with 0.
 */
function hashBytes(bytes: Uint8Array, start: number, end: number, seed: number): number {
  let hash = seed;
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
