import { addCounter } from "../model/task.ts";

/**
 * A script's stderr: reporter lines are consumed, every other line is logged,
 * the log keeps a bounded head and tail.
 */
const HEAD_BYTES = 64 * 1024;
const TAIL_BYTES = 64 * 1024;
const LINE_BYTES = 16 * 1024;
const COUNTERS_MAX = 200;
const NAME_CHARS_MAX = 200;
const STATUS_CHARS_MAX = 500;

export class StderrLog {
  readonly counters: Record<string, number> = Object.create(null);
  status = "";
  private readonly text = new HeadAndTail(HEAD_BYTES, TAIL_BYTES);
  private line = Buffer.alloc(0);
  private skipping = false;
  private afterCr = false;
  private readonly onReport: () => void;
  private readonly onText: ((text: string) => void) | undefined;

  /**
   * @param onReport is called when a counter or the status has changed.
   * @param onText takes what is logged, as it comes.
   */
  constructor(onReport: () => void = () => undefined, onText?: (text: string) => void) {
    this.onReport = onReport;
    this.onText = onText;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let i = 0; i < chunk.length; i += 1) {
      const byte = chunk[i];
      if (byte !== 10 && byte !== 13) {
        this.afterCr = false;
        continue;
      }
      if (byte === 10 && this.afterCr) {
        this.afterCr = false;
        start = i + 1;
        continue;
      }
      this.afterCr = byte === 13;
      this.extend(chunk.subarray(start, i));
      this.endLine();
      start = i + 1;
    }
    this.extend(chunk.subarray(start));
  }

  end(): void {
    if (this.line.length > 0) this.endLine();
  }

  /** Adds a line of the worker's own. */
  note(message: string): void {
    this.keep(Buffer.from(`${message}\n`));
  }

  private keep(text: Buffer): void {
    this.text.push(text);
    this.onText?.(text.toString());
  }

  private extend(part: Buffer): void {
    if (part.length === 0 || this.skipping) return;
    this.line = Buffer.concat([this.line, part.subarray(0, LINE_BYTES)]);
    if (this.line.length < LINE_BYTES) return;
    // One endless line must not be held: log what there is, drop the rest of it.
    this.keep(Buffer.concat([this.line.subarray(0, LINE_BYTES), Buffer.from(" ...\n")]));
    this.line = Buffer.alloc(0);
    this.skipping = true;
  }

  private endLine(): void {
    const { line } = this;
    this.line = Buffer.alloc(0);
    if (this.skipping) {
      this.skipping = false;
      return;
    }
    if (line.subarray(0, 9).toString("latin1") === "reporter:" && this.report(line.toString()))
      return;
    this.keep(Buffer.concat([line, Buffer.from("\n")]));
  }

  /** False: not a reporter line after all, so it is logged. */
  private report(line: string): boolean {
    if (line.startsWith("reporter:status:")) {
      this.status = line.slice("reporter:status:".length, 16 + STATUS_CHARS_MAX);
      this.onReport();
      return true;
    }
    if (!line.startsWith("reporter:counter:")) return false;
    const fields = line.slice("reporter:counter:".length).split(",");
    const amount = Number(fields.at(-1)?.trim());
    const name = fields.slice(0, -1).join(",");
    if (fields.length < 3 || !Number.isSafeInteger(amount) || name.length > NAME_CHARS_MAX) {
      this.note(`warning: malformed reporter line: ${line.slice(0, 200)}`);
      return true;
    }
    this.count(name, amount);
    return true;
  }

  /** Takes over what another run of the same attempt has said. */
  merge(other: StderrLog): void {
    this.keep(Buffer.from(other.toString()));
    if (other.status !== "") this.status = other.status;
    for (const [name, amount] of Object.entries(other.counters)) this.count(name, amount);
  }

  private count(name: string, amount: number): void {
    if (!(name in this.counters) && Object.keys(this.counters).length >= COUNTERS_MAX)
      return this.note(`warning: more than ${COUNTERS_MAX} counters; dropped ${name}`);
    this.counters[name] = addCounter(this.counters[name], amount);
    this.onReport();
  }

  /** All that was kept. */
  toString(): string {
    return this.text.toString();
  }

  /** The last lines, for an error message. */
  tail(bytes = 4096): string {
    const text = this.toString();
    return text.length <= bytes ? text : text.slice(text.indexOf("\n", text.length - bytes) + 1);
  }
}

class HeadAndTail {
  private readonly headMax: number;
  private readonly tailMax: number;
  private head: Buffer[] = [];
  private headBytes = 0;
  private tail: Buffer[] = [];
  private tailBytes = 0;
  private dropped = 0;

  constructor(headMax: number, tailMax: number) {
    this.headMax = headMax;
    this.tailMax = tailMax;
  }

  push(line: Buffer): void {
    if (this.headBytes < this.headMax) {
      this.head.push(line);
      this.headBytes += line.length;
      return;
    }
    this.tail.push(line);
    this.tailBytes += line.length;
    // Compacted in strides, so that dropping costs O(1) a line.
    if (this.tailBytes > 2 * this.tailMax) this.compact();
  }

  private compact(): void {
    let drop = 0;
    while (this.tailBytes > this.tailMax && drop < this.tail.length) {
      const bytes = (this.tail[drop] as Buffer).length;
      this.tailBytes -= bytes;
      this.dropped += bytes;
      drop += 1;
    }
    this.tail = this.tail.slice(drop);
  }

  toString(): string {
    const gap = this.dropped > 0 ? `... ${this.dropped} bytes left out ...\n` : "";
    return Buffer.concat(this.head).toString() + gap + Buffer.concat(this.tail).toString();
  }
}
