const MB = 1024 * 1024;

/** What a worker has, and how it is to be used. */
export interface MemoryGiven {
  /** Of its container, or its machine, in bytes. */
  memoryBytes: number;
  /** Whether scripts have to do with the same. */
  isShared: boolean;
  slots: number;
  reducesPerSlot: number;
  /** Of each slot, in bytes. */
  sortBytes: number;
  /** As the operator wants it, in bytes; undefined: as it fits. */
  lineBytes: number | undefined;
}

export interface MemoryPlan {
  /** A longer line of a script is refused, in bytes. */
  lineBytesMax: number;
  /** The longest that fits, in bytes. */
  lineBytesFit: number;
  /** What a slot has to merge long lines with, in bytes. */
  mergeBytes: number;
  /** For what is no data, in a slot's thread. */
  heapMb: number;
}

/** What is there for data and all else; the rest is the kernel's, and in case. */
const SHARE_ALONE = 0.85;
const SHARE_WITH_SCRIPTS = 0.6;
const PROCESS_BYTES = 160 * MB;
const SLOT_BYTES = 60 * MB;
/** How often a mapper's line is in memory: as input, rewritten, kept, given out, compressed. */
const MAP_COPIES = 5;
/** A reducer's: read out, kept until its end is there, rewritten twice; in each of a slot's reduces. */
const REDUCE_COPIES = 4;
/** To merge two: each as it is stored, as it is, and where it is compared; and some more. */
const MERGE_COPIES = 8;
const LINE_BYTES_LEAST = MB;
const LINE_BYTES_MOST = 256 * MB;
const HEAP_MB_LEAST = 256;
const HEAP_MB_MOST = 2_048;

/**
 * How long a line may be follows from the memory, as everything else that a job's data makes large: so that
 * an attempt fails, with the reason, before the kernel ends the worker and all it runs.
 */
export function planMemory(given: MemoryGiven): MemoryPlan {
  const { memoryBytes, isShared, slots, reducesPerSlot, sortBytes, lineBytes } = given;
  const usable = memoryBytes * (isShared ? SHARE_WITH_SCRIPTS : SHARE_ALONE);
  const large = Math.max(0, (usable - PROCESS_BYTES) / slots - SLOT_BYTES - sortBytes);
  const copies = Math.max(MAP_COPIES, REDUCE_COPIES * reducesPerSlot);
  const fit = Math.floor(large / (copies + MERGE_COPIES) / MB) * MB;
  const lineBytesFit = Math.min(LINE_BYTES_MOST, Math.max(LINE_BYTES_LEAST, fit));
  const lineBytesMax = lineBytes ?? lineBytesFit;
  const heapMb = Math.floor(usable / (slots + 1) / 2 / MB);
  return {
    lineBytesMax,
    lineBytesFit,
    mergeBytes: Math.max(MERGE_COPIES * lineBytesMax, large - copies * lineBytesMax),
    heapMb: Math.min(HEAP_MB_MOST, Math.max(HEAP_MB_LEAST, heapMb)),
  };
}
