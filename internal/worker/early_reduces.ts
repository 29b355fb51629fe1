import { rm } from "node:fs/promises";
import { contractOf } from "../model/contract.ts";
import type { JobId } from "../model/ids.ts";
import type { ObjectStore } from "../model/object_store.ts";
import type { EarlySources, Source, TaskJob } from "../model/task.ts";
import { OUTPUT } from "../shuffle/kernel/functions.ts";
import { type LineOrder, lineOrder } from "../shuffle/key_order.ts";
import { LargeMemory, type LargeShare } from "../shuffle/large_memory.ts";
import { MERGE_FAN_IN, mergedPairs } from "../shuffle/merge.ts";
import { SpillFolder } from "../shuffle/spill.ts";
import type { Scratch } from "./attempt_files.ts";
import { type MergedSources, readSegment } from "./segment.ts";

/** Fewer adjacent outputs than this are not worth a run of their own. */
const RUN_SOURCES_MIN = 8;
/** Local disk that one reduce task may take before it is granted, in bytes. */
const EARLY_BYTES_MAX = 512 * 1024 * 1024;

/**
 * Map outputs fetched and merged for reduce tasks that may be granted to this slot. Where one goes wrong it is
 * left: the task reads for itself what is not here, and says what is wrong with it.
 */
export class EarlyReduces {
  private readonly store: ObjectStore;
  private readonly scratch: Scratch;
  private readonly memory: LargeMemory;
  private readonly jobs = new Map<JobId, Map<number, EarlyReduce>>();

  /** @param memory for long lines, of the slot. */
  constructor(store: ObjectStore, scratch: Scratch, memory = new LargeMemory(Infinity)) {
    this.store = store;
    this.scratch = scratch;
    this.memory = memory;
  }

  /** Resolves when all is merged that is worth it so far. */
  async add({ job, partition, sources, maps }: EarlySources): Promise<void> {
    // A few local files are read as fast from where they are.
    if (!this.store.remote && job.maps <= MERGE_FAN_IN) return;
    const partitions = this.jobs.get(job.id) ?? new Map<number, EarlyReduce>();
    this.jobs.set(job.id, partitions);
    const early =
      partitions.get(partition) ?? new EarlyReduce(this.store, this.scratch, job, this.memory);
    partitions.set(partition, early);
    await early.add(sources, maps);
  }

  /** What there is, is the caller's to dispose of. A run that is being made is waited for: its sources are read but once. */
  async take(job: JobId, partition: number): Promise<EarlyReduce | undefined> {
    const early = this.jobs.get(job)?.get(partition);
    this.jobs.get(job)?.delete(partition);
    await early?.finish();
    return early;
  }

  /** @param job undefined: all jobs. */
  async forget(job: JobId | undefined): Promise<void> {
    const gone = job === undefined ? [...this.jobs.keys()] : [job];
    const early = gone.flatMap((id) => [...(this.jobs.get(id)?.values() ?? [])]);
    for (const id of gone) this.jobs.delete(id);
    await Promise.all(early.map((one) => one[Symbol.asyncDispose]()));
  }
}

/**
 * One reduce task's. Only outputs of adjacent map tasks are merged, so that equal keys
 * come in the same order as from the outputs themselves.
 */
class EarlyReduce implements AsyncDisposable {
  readonly runs: MergedSources[] = [];
  private readonly store: ObjectStore;
  private readonly order: LineOrder;
  private readonly folder: string;
  private readonly memory: LargeShare;
  private readonly stop = new AbortController();
  /** By map task, those that are not in a run. */
  private readonly waiting: (Source | undefined)[];
  private bytes = 0;
  private over = false;
  private working: Promise<void> | undefined;

  constructor(store: ObjectStore, scratch: Scratch, job: TaskJob, memory: LargeMemory) {
    this.memory = memory.share(this.stop.signal);
    const { conf, partitioner, outputFormat, sortValues, maps } = job;
    this.store = store;
    this.order = lineOrder(
      contractOf({ conf, partitioner, output_format: outputFormat }),
      sortValues,
    );
    this.folder = scratch.newSpill();
    this.waiting = new Array(maps);
  }

  add(sources: Source[], maps: number[]): Promise<void> {
    sources.forEach((source, i) => {
      const map = maps[i] ?? -1;
      if (source.at !== undefined && map >= 0 && map < this.waiting.length)
        this.waiting[map] = source;
    });
    this.working ??= this.work().finally(() => {
      this.working = undefined;
    });
    return this.working;
  }

  private async work(): Promise<void> {
    try {
      for (let next = this.adjacent(); next !== undefined; next = this.adjacent()) {
        const { first, sources } = next;
        for (let i = 0; i < sources.length; i += 1) this.waiting[first + i] = undefined;
        this.runs.push(await this.merge(first, sources));
      }
    } catch {
      // The task itself will find out, if it is granted.
      this.over = true;
    }
  }

  /** The first adjacent outputs that are worth a run. */
  private adjacent(): { first: number; sources: Source[] } | undefined {
    if (this.over || this.bytes >= EARLY_BYTES_MAX) return undefined;
    let sources: Source[] = [];
    for (let map = 0; map <= this.waiting.length; map += 1) {
      const source = this.waiting[map];
      if (source !== undefined && sources.length < MERGE_FAN_IN) {
        sources.push(source);
        continue;
      }
      if (sources.length >= RUN_SOURCES_MIN) return { first: map - sources.length, sources };
      sources = source === undefined ? [] : [source];
    }
    return undefined;
  }

  private async merge(first: number, sources: Source[]): Promise<MergedSources> {
    const { signal } = this.stop;
    let bytes = 0;
    const count = (more: number) => {
      signal.throwIfAborted();
      bytes += more;
    };
    const { store, memory } = this;
    const reading = { store, signal, count, memory };
    const segments = sources.flatMap((source) => {
      const { at } = source;
      return at === undefined || at.bytes === 0 ? [] : () => readSegment(reading, source, at);
    });
    const spill = new SpillFolder(this.folder, `${first}-`, memory);
    const [open] = await spill.write(async (writer) => {
      const pairs = mergedPairs(segments, this.order, spill);
      await pairs.give(OUTPUT.records, (block) => writer.putBlock(block), writer.blockBytes);
      await writer.endSegment();
    });
    if (open === undefined) throw new Error("a run without a segment");
    this.bytes += bytes;
    return { first, sources, bytes, open };
  }

  /** Begins no other run. */
  async finish(): Promise<void> {
    this.over = true;
    await this.working;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    await this.finish();
    // Best effort: it goes with the worker's folder at the latest.
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 }).catch(() => undefined);
  }
}
