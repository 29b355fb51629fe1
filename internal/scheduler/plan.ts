import type { InputRange, Split } from "../model/task.ts";

/** A blob of the input. `whole`: it cannot be cut (compressed). */
export interface InputBlob {
  container: string;
  name: string;
  etag: string;
  size: number;
  whole: boolean;
}

const SPLIT_BYTES_DEFAULT = 64 * 1024 * 1024;
const SPLIT_BYTES_MIN = 1024 * 1024;

/** A blob under 1/8 of a split is not cut: that unbalances splits by less than it saves. */
const SMALL = 8;

/**
 * How many map tasks for `m_num: 0`: one per 64 MiB, but enough to keep every
 * slot busy about three times over, as long as a task has at least 1 MiB.
 */
export function chooseMaps(bytes: number, slots: number, mapsMax: number): number {
  const bySize = Math.ceil(bytes / SPLIT_BYTES_DEFAULT);
  const bySlots = Math.min(slots * 3, Math.floor(bytes / SPLIT_BYTES_MIN));
  return Math.min(mapsMax, Math.max(1, bySize, bySlots));
}

/**
 * Cuts the input into `maps` splits of about equal bytes, in blob order: large
 * blobs are cut, small ones packed together. Always exactly `maps` splits; with
 * fewer bytes than splits some are empty. Empty blobs have no records and no range.
 */
export function planSplits(blobs: InputBlob[], maps: number): Split[] {
  const total = blobs.reduce((sum, blob) => sum + blob.size, 0);
  const splits: Split[] = Array.from({ length: maps }, () => []);
  let before = 0; // bytes of all blobs before this one
  for (const blob of blobs) {
    if (blob.size === 0) continue;
    if (blob.whole || blob.size * maps * SMALL <= total) {
      // It goes where its middle lies.
      splits[splitAt(before + blob.size / 2, total, maps)]?.push(rangeOf(blob, 0, blob.size));
    } else {
      let start = 0;
      while (start < blob.size) {
        const index = splitAt(before + start, total, maps);
        const end = Math.min(blob.size, boundary(index + 1, total, maps) - before);
        splits[index]?.push(rangeOf(blob, start, end - start));
        start = end;
      }
    }
    before += blob.size;
  }
  // Grown arrays have room to spare, which most splits will never need.
  return splits.map((split) => split.slice());
}

/** The first byte of split `index` in the concatenated input. */
function boundary(index: number, total: number, maps: number): number {
  return Math.ceil((index * total) / maps);
}

function splitAt(position: number, total: number, maps: number): number {
  let index = Math.min(maps - 1, Math.floor((position * maps) / total));
  while (index > 0 && boundary(index, total, maps) > position) index -= 1;
  while (index < maps - 1 && boundary(index + 1, total, maps) <= position) index += 1;
  return index;
}

function rangeOf(blob: InputBlob, start: number, length: number): InputRange {
  const { container, name, etag, size } = blob;
  return { container, name, etag, start, length, size };
}
