const GATHERED_BYTES = 64 * 1024;

/**
 * Puts small chunks together: a thousand small files are a few writes to a script's
 * pipe then, and wake it as often. Large chunks pass as they are. A chunk is good until the next is asked for.
 */
export async function* gathered(chunks: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let buffer: Buffer | undefined;
  let filled = 0;
  for await (const chunk of chunks) {
    const isLarge = chunk.length > GATHERED_BYTES / 2;
    if (filled > 0 && (isLarge || filled + chunk.length > GATHERED_BYTES)) {
      yield (buffer as Buffer).subarray(0, filled);
      filled = 0;
    }
    if (isLarge) {
      yield chunk;
      continue;
    }
    buffer ??= Buffer.allocUnsafe(GATHERED_BYTES);
    buffer.set(chunk, filled);
    filled += chunk.length;
  }
  if (filled > 0) yield (buffer as Buffer).subarray(0, filled);
}
