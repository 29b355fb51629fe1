import { readFileSync } from "node:fs";
import { MrError } from "../../model/errors.ts";
import type { Functions } from "./functions.ts";

/**
 * The code that touches every record: assembly/, compiled to kernel.wasm by `npm run
 * kernel`. It allocates nothing: an instance has one linear memory, laid out here in
 * regions one behind the other. JS only moves buffers into and out of it.
 */
const MODULE = new WebAssembly.Module(readFileSync(new URL("kernel.wasm", import.meta.url)));

/** What the kernel asks back where options of a job decide. Positions are into its memory. */
export interface Host {
  compare(
    a: number,
    aKeyBytes: number,
    aBytes: number,
    b: number,
    bKeyBytes: number,
    bBytes: number,
  ): number;
  partition(key: number, keyBytes: number): number;
}

const PAGE_BYTES = 65_536;
/** The kernel reads and writes by words: up to this far beyond the end of a region. */
const PAD_BYTES = 64;
/** Below lie the kernel's own constants. */
const FIRST = 4_096;
const IDLE_MAX = 4;

/** Instances that wait for the next task of this thread, so that their memory is used again. */
const idle: Kernel[] = [];

/** One instance: its functions and its memory. Dispose of it for the next to use. */
export class Kernel implements Disposable {
  readonly fn: Functions;
  host: Host = NO_HOST;
  private readonly memory: WebAssembly.Memory;
  private top = FIRST;
  private isOversized = false;
  private view: Buffer;

  private constructor() {
    const host: Host = {
      compare: (...lines) => this.host.compare(...lines),
      partition: (key, keyBytes) => this.host.partition(key, keyBytes),
    };
    const { exports } = new WebAssembly.Instance(MODULE, { host });
    this.fn = exports as Functions;
    this.memory = (exports as { memory: WebAssembly.Memory }).memory;
    this.view = Buffer.from(this.memory.buffer);
  }

  /**
   * Memory that was added stays: whoever needs much takes the instance that has the most, others the least,
   * so that not all of them become large in time.
   */
  static take(need: "small" | "large" = "small"): Kernel {
    idle.sort((a, b) => a.memory.buffer.byteLength - b.memory.buffer.byteLength);
    return (need === "large" ? idle.pop() : idle.shift()) ?? new Kernel();
  }

  /** All of its memory. A region of it is good until memory is added. */
  get bytes(): Buffer {
    if (this.view.buffer !== this.memory.buffer) this.view = Buffer.from(this.memory.buffer);
    return this.view;
  }

  /** A new region; returns where it begins. */
  region(bytes: number): number {
    const start = Math.ceil(this.top / 16) * 16;
    this.reserveTo(start + bytes + PAD_BYTES);
    return start;
  }

  /** A new region with these bytes in it. */
  put(bytes: Uint8Array): number {
    const at = this.region(bytes.length);
    this.bytes.set(bytes, at);
    return at;
  }

  /**
   * Regions made from now on begin behind this. What nobody writes to takes no memory.
   * @throws MrError `user` where there is no more: the lines are too long, or what keeps them is set too large.
   */
  reserveTo(end: number): void {
    this.top = Math.max(this.top, end);
    const missing = end - this.memory.buffer.byteLength;
    if (missing <= 0) return;
    try {
      this.memory.grow(Math.ceil(missing / PAGE_BYTES));
    } catch (cause) {
      const most = Math.round(end / 1_048_576);
      throw new MrError("user", `its lines are too long: no ${most} MB can be had to sort them`, {
        cause,
      });
    }
  }

  /** It has become large for lines of which few are so long: nobody else is to keep its memory. */
  oversize(): void {
    this.isOversized = true;
  }

  [Symbol.dispose](): void {
    this.top = FIRST;
    this.host = NO_HOST;
    if (this.isOversized) return;
    if (idle.length < IDLE_MAX && !idle.includes(this)) idle.push(this);
  }
}

const NO_HOST: Host = {
  compare: () => 0,
  partition: () => 0,
};
