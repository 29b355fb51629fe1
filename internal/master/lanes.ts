const REQUESTS_AT_A_TIME = 16;

/** Works on some items at a time. */
export async function inLanes<T>(items: T[], work: (item: T) => Promise<unknown>): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await work(items[next++] as T);
  };
  await Promise.all(Array.from({ length: Math.min(REQUESTS_AT_A_TIME, items.length) }, lane));
}

/** The same, with at most so many bytes of them in memory. */
export async function inBatches<T>(
  items: T[],
  bytesOf: (item: T) => number,
  bytesMax: number,
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  let batch: T[] = [];
  let bytes = 0;
  for (const item of items) {
    if (
      batch.length > 0 &&
      (batch.length === REQUESTS_AT_A_TIME || bytes + bytesOf(item) > bytesMax)
    ) {
      await Promise.all(batch.map(work));
      [batch, bytes] = [[], 0];
    }
    batch.push(item);
    bytes += bytesOf(item);
  }
  await Promise.all(batch.map(work));
}
