/** The kernel's functions (assembly/kernel.ts); numbers are u32 unless a comment says more. */
export interface Functions {
  countByte(start: number, end: number, byte: number): number;

  setArena(start: number, end: number, slotsMax: number): void;
  setFormat(
    keyFields: number,
    separator: number,
    separatorBytes: number,
    written: number,
    writtenBytes: number,
    scratch: number,
  ): void;
  emptyArena(): void;
  resetTotals(): void;
  /** Returns where the first line begins that was not taken. */
  addLines(start: number, end: number): number;
  isFull(): number;
  entryCount(): number;
  /** A whole number of any size. */
  totalRecords(): number;
  totalHashes(): bigint;

  COUNTERS_BYTES: WebAssembly.Global;
  setOrder(kind: Order): void;
  setCounters(at: number): void;
  /** Returns where the memory ends that sorting needs. */
  partitionEntries(kind: Partitioning, partitions: number): number;
  scatterEntries(): void;
  sortPartition(partition: number): number;
  giveSorted(): number;

  mergeBytes(sources: number): number;
  beginMerge(at: number, sources: number): void;
  setBounds(from: number, fromBytes: number, to: number, toBytes: number): void;
  setBlock(source: number, block: number, bytes: number): number;
  giveMerged(): number;

  setOutput(kind: Output, start: number, bytes: number, blockBytes: number): void;
  resetOutput(): void;
  takeOutput(): number;
  outputNeeds(): number;
  /** A whole number of any size. */
  recordsGiven(): number;
}

/** How lines are ordered: by key, by the whole line, or by the host's comparator. */
export const ORDER = { key: 0, line: 1, host: 2 } as const;
export type Order = (typeof ORDER)[keyof typeof ORDER];

/** Which partition an entry is in: there is one, by Hadoop's hash, or by the host. */
export const PARTITIONING = { one: 0, hadoop: 1, host: 2 } as const;
export type Partitioning = (typeof PARTITIONING)[keyof typeof PARTITIONING];

/** What records are given as: blocks of a run, or lines as often as they occur. */
export const OUTPUT = { records: 0, lines: 1 } as const;
export type Output = (typeof OUTPUT)[keyof typeof OUTPUT];

/** What giving records came to; from `needs` on: a source wants its next block. */
export const STATUS = { end: 0, full: 1, tooSmall: 2, damaged: 3, needs: 16 } as const;
