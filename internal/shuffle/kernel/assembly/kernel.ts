/** What the host calls. Memory is the host's to lay out; nothing here allocates. */
export { countByte } from "./bytes";
export {
  addLines,
  arenaUsed,
  emptyArena,
  entryCount,
  isFull,
  resetTotals,
  setArena,
  setFormat,
  totalHashes,
  totalRecords,
} from "./collect";
export { beginMerge, giveMerged, mergeBytes, setBlock, setBounds } from "./merge";
export { setOrder } from "./order";
export { outputNeeds, recordsGiven, resetOutput, setOutput, takeOutput } from "./output";
export {
  COUNTERS_BYTES,
  giveSorted,
  partitionEntries,
  scatterEntries,
  setCounters,
  sortPartition,
} from "./sort";
