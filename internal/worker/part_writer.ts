import { compressInto } from "../codec/compress.ts";
import type { PairFormat } from "../model/contract.ts";
import { MrError } from "../model/errors.ts";
import type { StagedObject } from "../model/object_store.ts";
import { countLines, LineNormalizer, piecesOf } from "../shuffle/lines.ts";
import { ResultLines } from "../shuffle/result_lines.ts";
import type { TaskContext } from "./task_context.ts";

/** Takes what scripts print. */
export interface Printed {
  push(chunk: Uint8Array): Promise<void>;
  /** Ends the last line; after each script, so that the next one begins a new line. */
  endLine(): Promise<void>;
}

/** Lines on their way into a part of the result, each ended by one LF. */
export interface PartWriter extends Printed {
  end(): Promise<void>;
}

/** @param format how the lines are cut, where the result is not to be as it was printed. */
export function partWriter(
  context: TaskContext,
  staged: StagedObject,
  format: PairFormat,
): PartWriter {
  const { contract, options, stats } = context;
  const { resultSeparator, separatorAlways: always, compression } = contract;
  const { lineBytesMax } = options;
  const lines = new LineNormalizer();
  const length = new LineLength(lineBytesMax);
  const rewritten =
    resultSeparator === undefined
      ? undefined
      : new ResultLines({ format, separator: resultSeparator, always });
  const packed =
    compression === undefined
      ? undefined
      : compressInto(compression, (chunk) => staged.write(chunk));
  const write = async (bytes: Uint8Array) => {
    stats.bytesOut += bytes.length;
    if (bytes.length > 0) await (packed ?? staged).write(bytes);
  };
  const take = async (normal: Uint8Array) => {
    length.check(normal);
    stats.recordsOut += countLines(normal);
    if (rewritten === undefined) return write(normal);
    // A line may become a separator longer: many empty ones are as many times as much.
    for (const piece of piecesOf(normal, PIECE_BYTES)) await write(rewritten.push(piece));
  };
  return {
    push: (chunk) => take(lines.push(chunk)),
    endLine: () => take(lines.push(lines.end())),
    end: async () => {
      await take(lines.push(lines.end()));
      await packed?.end();
    },
  };
}

const PIECE_BYTES = 16 * 1024;

/** Refuses lines that are too long, before they do harm further on. */
class LineLength {
  private readonly max: number;
  private open = 0;

  constructor(max: number) {
    this.max = max;
  }

  check(chunk: Uint8Array): void {
    const lf = chunk.lastIndexOf(10);
    this.open = lf < 0 ? this.open + chunk.length : chunk.length - lf - 1;
    if (this.open > this.max)
      throw new MrError("user", `the script printed a line of more than ${this.max} bytes`);
  }
}
