import type { PairFormat } from "../model/contract.ts";
import { MrError } from "../model/errors.ts";
import { ORDER, PARTITIONING } from "./kernel/functions.ts";
import { Kernel } from "./kernel/kernel.ts";
import type { LineOrder } from "./key_order.ts";
import type { Partitioner } from "./partitioner.ts";
import { KernelOutput, type SortedPairs } from "./sorted_pairs.ts";

export interface PairCollectorOptions {
  /** How the script's lines are cut; one with fewer separators than its key has fields is a key alone. */
  format: PairFormat;
  /** Between key and value of the lines that are kept: what a reducer will read. */
  separator: string;
  /** A longer line is refused, in bytes. */
  lineBytesMax: number;
  partitions: number;
  partitioner: Partitioner;
  order: LineOrder;
  /** Memory for pairs and their sorting, in bytes. */
  sortBytes: number;
}

const LF = 10;
const INPUT_BYTES = 256 * 1024;
const SLOT_BYTES = 32;
const SLOTS_MIN = 64;
/** Of a line that alone is more than all the memory: what its entry takes beside it. */
const ENTRY_BYTES = 128;

/**
 * Cuts a script's stdout (LF-ended lines) into pairs and keeps them, equal ones once
 * with their count, until they are drained in order.
 */
export class PairCollector implements Disposable {
  bytes = 0;
  private readonly options: PairCollectorOptions;
  private readonly makeRoom: () => Promise<void>;
  private readonly kernel = Kernel.take("large");
  private readonly output: KernelOutput;
  private readonly slots: number;
  private input = 0;
  private inputBytes = 0;
  /** Bytes of the line that has no end yet, at the input's beginning. */
  private carried = 0;
  private separators: [from: number, into: number] = [0, 0];
  private hasArenaForAny = false;

  /** @param makeRoom drains the pairs there are. */
  constructor(options: PairCollectorOptions, makeRoom: () => Promise<void>) {
    this.options = options;
    this.makeRoom = makeRoom;
    const { kernel } = this;
    const { fn } = kernel;
    const { order, sortBytes } = options;
    fn.setOrder(!order.byBytes ? ORDER.host : order.values ? ORDER.line : ORDER.key);
    kernel.host = this.host();
    fn.setCounters(kernel.region(fn.COUNTERS_BYTES.value as number));
    this.output = new KernelOutput(kernel);
    const { format, separator } = options;
    this.separators = [
      kernel.put(Buffer.from(format.separator)),
      kernel.put(Buffer.from(separator)),
    ];
    this.enlargeInput(INPUT_BYTES);
    this.slots = Math.max(SLOTS_MIN, 2 ** Math.floor(Math.log2(sortBytes / 96)));
    this.setArena(Math.max(ENTRY_BYTES, sortBytes - this.slots * SLOT_BYTES));
    fn.resetTotals();
  }

  private host() {
    const { order, partitioner } = this.options;
    const { kernel } = this;
    return {
      compare: (a: number, aKey: number, aAll: number, b: number, bKey: number, bAll: number) => {
        const { bytes } = kernel;
        return order.compare(bytes, a, aKey, a + aAll, bytes, b, bKey, b + bAll);
      },
      partition: (key: number, keyBytes: number) =>
        partitioner.kind === "host" ? partitioner.of(kernel.bytes, key, key + keyBytes) : 0,
    };
  }

  /** @param bytes beside its table. */
  private setArena(bytes: number): void {
    const all = Math.ceil(bytes / 16) * 16 + this.slots * SLOT_BYTES;
    const at = this.kernel.region(all);
    this.kernel.fn.setArena(at, at + all, this.slots);
  }

  /** Keeps what is carried. */
  private enlargeInput(bytes: number): void {
    const { kernel } = this;
    const { format, separator } = this.options;
    const [from, into] = [format.separator, separator].map((text) => Buffer.byteLength(text));
    const old = this.input;
    this.input = kernel.region(bytes);
    this.inputBytes = bytes;
    kernel.bytes.copyWithin(this.input, old, old + this.carried);
    const scratch = format.separator === separator ? 0 : kernel.region(bytes + (into ?? 0));
    kernel.fn.setFormat(
      format.keyFields,
      this.separators[0],
      from ?? 0,
      this.separators[1],
      into ?? 0,
      scratch,
    );
  }

  /** For any line that is not refused: at once, since regions are not given back, and none takes memory unless it is used. */
  private makeRoomForAnyLine(): void {
    this.kernel.oversize();
    this.enlargeInput(this.options.lineBytesMax + INPUT_BYTES);
  }

  get empty(): boolean {
    return this.kernel.fn.entryCount() === 0;
  }

  get records(): number {
    return this.kernel.fn.totalRecords();
  }

  /** Of all pairs so far, whatever their order. */
  get digest(): string {
    const hashes = BigInt.asUintN(64, this.kernel.fn.totalHashes());
    return `${this.records}-${this.bytes}-${hashes.toString(16).padStart(16, "0")}`;
  }

  /** Takes a chunk of LF-ended lines; it may begin and end inside a line. */
  async push(chunk: Uint8Array): Promise<void> {
    this.bytes += chunk.length;
    for (let rest = chunk; rest.length > 0; ) {
      if (this.carried === this.inputBytes) this.makeRoomForAnyLine();
      const part = rest.subarray(0, this.inputBytes - this.carried);
      rest = rest.subarray(part.length);
      this.kernel.bytes.set(part, this.input + this.carried);
      // What goes on and on is looked through once, when its end is there.
      const open = this.carried > 0 && part.indexOf(LF) < 0;
      if (open) this.carried += part.length;
      else await this.addLines(this.input + this.carried + part.length);
      this.checkLine();
    }
  }

  private async addLines(end: number): Promise<void> {
    const { kernel } = this;
    const { fn } = kernel;
    let at = fn.addLines(this.input, end);
    while (fn.isFull() !== 0) {
      if (!this.empty) await this.makeRoom();
      else this.setArenaForAny();
      at = fn.addLines(at, end);
    }
    this.carried = end - at;
    kernel.bytes.copyWithin(this.input, at, end);
  }

  /** No memory is too small for one line. */
  private setArenaForAny(): void {
    if (this.hasArenaForAny) throw new Error("a line that fits nowhere");
    this.hasArenaForAny = true;
    this.kernel.oversize();
    this.setArena(this.inputBytes + Buffer.byteLength(this.options.separator) + ENTRY_BYTES);
  }

  private checkLine(): void {
    const { lineBytesMax } = this.options;
    if (this.carried > lineBytesMax)
      throw new MrError("user", `the script printed a line of more than ${lineBytesMax} bytes`);
  }

  /** Call once, after the last chunk. */
  async end(): Promise<void> {
    if (this.carried > 0) await this.push(Uint8Array.of(LF));
  }

  /**
   * Hands all pairs out, partition by partition in order, and forgets them.
   * @param each is called once a partition; `some`: there are pairs in it.
   */
  async drain(each: (pairs: SortedPairs, some: boolean) => Promise<void>): Promise<void> {
    const { kernel, output } = this;
    const { fn } = kernel;
    const { partitions, partitioner } = this.options;
    kernel.reserveTo(fn.partitionEntries(PARTITIONING[partitioner.kind], partitions));
    fn.scatterEntries();
    const pairs: SortedPairs = {
      give: (as, take, blockBytes) => output.drain(() => fn.giveSorted(), as, take, blockBytes),
    };
    for (let partition = 0; partition < partitions; partition += 1)
      await each(pairs, fn.sortPartition(partition) > 0);
    fn.emptyArena();
  }

  [Symbol.dispose](): void {
    this.kernel[Symbol.dispose]();
  }
}
