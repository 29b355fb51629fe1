import { setTimeout as delay } from "node:timers/promises";
import { contractOf } from "../model/contract.ts";
import { MrError, messageOf } from "../model/errors.ts";
import { failurePoint } from "../model/failure_point.ts";
import type { AttemptId, JobId } from "../model/ids.ts";
import { isCompressed, isUnreadable } from "../model/input_format.ts";
import { inputOf } from "../model/input_pattern.ts";
import { LIMIT } from "../model/limits.ts";
import type { Logger } from "../model/logger.ts";
import { CONTAINER, folderPrefix, foundNameFault, joinName, locationOf } from "../model/names.ts";
import { type ObjectStore, readAll } from "../model/object_store.ts";
import { type DoneRecord, decodeRecord, type JobRecord } from "../model/records.ts";
import { attemptOfMapOutput, MAP_MANIFEST, type Receipt, type Segments } from "../model/task.ts";
import type { Archive, Command, Marker, Plan } from "../scheduler/events.ts";
import { chooseMaps, type InputBlob, planSplits } from "../scheduler/plan.ts";
import { badOutputOf, outputOf } from "../scheduler/state.ts";
import { cutRanges, type KeySample, parseKeyIndex, samplesOf } from "../shuffle/key_index.ts";
import { lineOrder } from "../shuffle/key_order.ts";
import { JobArchive } from "./archive.ts";
import { inBatches, inLanes } from "./lanes.ts";
import { sortedInTurns, Turns } from "./turns.ts";

type Of<K extends Command["kind"]> = Extract<Command, { kind: K }>;

const RETRY_MS_MAX = 10_000;
/**
 * To publish, for what it rests on has been paid for: about 3 s where a name is taken, say, and about
 * five minutes where an operator may have to give a right back.
 */
const PUBLISH_TRIES = (error: unknown) => (MrError.is(error, "denied") ? 35 : 5);
/** Keys looked at to cut ranges: of all map outputs together, and of each. */
const SAMPLES_MAX = 200_000;
const SAMPLES_MIN = 20;
/** Of indexes of map outputs that are looked at together. */
const INDEXES_BYTES_MAX = 64 * 1024 * 1024;

/** Map outputs are gone, or not what they were. */
export class LostSources extends MrError {
  readonly attempts: AttemptId[];

  constructor(attempts: AttemptId[]) {
    super("corrupt", `${attempts.length} map outputs cannot be read whole`);
    this.attempts = attempts;
  }
}

/** What a leader does with storage. All of it may be done again by the next one. */
export class StorageEffects {
  readonly archive: JobArchive;
  private readonly store: ObjectStore;
  private readonly logger: Logger;
  private readonly signal: AbortSignal;
  private readonly trouble: (job: JobId, message: string) => void;

  /**
   * @param signal ends the leader's term, and with it every retry.
   * @param trouble is told of what has to be tried again.
   */
  constructor(
    store: ObjectStore,
    logger: Logger,
    signal: AbortSignal,
    trouble: (job: JobId, message: string) => void,
  ) {
    this.archive = new JobArchive(store);
    this.store = store;
    this.logger = logger;
    this.signal = signal;
    this.trouble = trouble;
  }

  /** @throws MrError other than `unavailable`: the input cannot be planned. */
  async plan(record: JobRecord, slots: number): Promise<Plan> {
    return this.insist("planning", record.id, async () => {
      // Whatever the job's attempts write to is there before any of them is granted.
      await this.store.ensureContainer(CONTAINER.intermediate);
      await this.store.ensureContainer(CONTAINER.logs);
      for (const place of [outputOf(record), badOutputOf(record)])
        await this.store.ensureContainer(locationOf(place).container);
      return record.spec.phase === "reduce"
        ? { kind: "done", done: await this.readManifest(record.spec.from) }
        : { kind: "splits", splits: await this.planSplits(record, slots) };
    });
  }

  /** What a step reads is the whole result of the one before, or there is nothing to be made of it. */
  private async checkStepInput({ spec, pipeline }: JobRecord): Promise<void> {
    if (pipeline === undefined) return;
    for (const { container, prefix } of spec.data.map(inputOf)) {
      if (container !== CONTAINER.intermediate || !prefix.endsWith("/part-")) continue;
      const marker = prefix.replace(/part-$/, "_SUCCESS");
      if ((await this.store.head(container, marker)) === undefined)
        throw new MrError(
          "invalid",
          `the result of the step before is gone: ${container}/${marker}`,
        );
    }
  }

  private async planSplits(record: JobRecord, slots: number) {
    await this.checkStepInput(record);
    const blobs: InputBlob[] = [];
    let bytes = 0;
    for await (const blob of this.inputs(record.spec.data)) {
      const fault = foundNameFault(blob.name);
      if (fault !== undefined)
        throw new MrError("invalid", `${blob.container}/${blob.name}: ${fault}`);
      if (isUnreadable(blob.name))
        throw new MrError("invalid", `${blob.name}: compressed inputs end in .gz, .zst or .bz2`);
      blobs.push(blob);
      bytes += blob.size;
      if (blobs.length > LIMIT.inputBlobs)
        throw new MrError("invalid", `the input has more than ${LIMIT.inputBlobs} blobs`);
    }
    const mapsMax = Math.min(
      LIMIT.maps,
      Math.floor(LIMIT.mapsTimesReduces / Math.max(1, record.spec.r_num)),
    );
    const maps = record.spec.m_num || chooseMaps(bytes, slots, mapsMax);
    const splits = planSplits(blobs, maps);
    for (const split of splits)
      if (split.length > LIMIT.rangesPerTask)
        throw new MrError(
          "invalid",
          `one map task would read ${split.length} blobs (at most ${LIMIT.rangesPerTask}): raise m_num`,
        );
    return splits;
  }

  /** In the order of the request; what it names twice is read twice, as by `cat`. */
  private async *inputs(data: string[]): AsyncIterable<InputBlob> {
    const turns = new Turns();
    for (const text of data) {
      const { container, prefix, matches } = inputOf(text);
      for await (const { name, size, etag } of this.store.list(container, prefix)) {
        await turns.next();
        if (matches(name)) yield { container, name, etag, size, whole: isCompressed(name) };
      }
    }
  }

  private async readManifest(job: string): Promise<DoneRecord[]> {
    const name = joinName(job, MAP_MANIFEST);
    const text = (await readAll(this.store.read(CONTAINER.intermediate, name))).toString();
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => decodeRecord("done", `${CONTAINER.intermediate}/${name}`, line));
  }

  /**
   * Cuts the keys of the map outputs into ranges of about equal bytes.
   * @throws LostSources when some of them cannot be read whole.
   */
  async cut({ job, sources }: Of<"cut">): Promise<Buffer[]> {
    const { spec } = job;
    const order = lineOrder(contractOf(spec), false);
    const each = Math.max(SAMPLES_MIN, Math.floor(SAMPLES_MAX / Math.max(1, sources.length)));
    const samples: KeySample[] = [];
    const lost: AttemptId[] = [];
    const bytesOf = ({ size, indexOffset }: Segments) => size - indexOffset;
    await inBatches(sources, bytesOf, INDEXES_BYTES_MAX, async (source) => {
      try {
        const index = await this.insist("cutting", job.id, () => this.readKeyIndex(source));
        samples.push(...samplesOf(index, each));
      } catch (error) {
        const attempt = attemptOfMapOutput(source.object);
        const isLost = MrError.is(error, "not_found") || MrError.is(error, "corrupt");
        if (!isLost || attempt === undefined) throw error;
        lost.push(attempt);
      }
    });
    if (lost.length > 0) throw new LostSources(lost);
    const sorted = await sortedInTurns(samples, (a, b) =>
      order.compareKeys(a.key, 0, a.key.length, b.key, 0, b.key.length),
    );
    return cutRanges(sorted, spec.r_num);
  }

  private async readKeyIndex({ object, indexOffset, size }: Segments) {
    const range = { start: indexOffset, length: size - indexOffset };
    return parseKeyIndex(await readAll(this.store.read(CONTAINER.intermediate, object, range)));
  }

  /**
   * Every receipt, then the marker. Ends when all is done, or the term is over; or when some of
   * what was staged is no more.
   * @returns these, and then there is no marker.
   * @throws MrError: it is refused, and was tried for long enough.
   */
  async publish({ job, receipts, marker }: Of<"publish">): Promise<Receipt[]> {
    const gone = new Set<Receipt>();
    const body = async () => {
      await inLanes(receipts, async (receipt) => {
        await failurePoint("master.publish.before-part");
        if (!(await this.published(receipt))) gone.add(receipt);
        await failurePoint("master.publish.after-part");
      });
      if (gone.size > 0) return;
      await failurePoint("master.publish.before-marker");
      await this.store.create(marker.container, marker.name, Buffer.from(marker.body));
      await failurePoint("master.publish.after-marker");
    };
    try {
      await this.insist("publishing", job, body, PUBLISH_TRIES);
    } catch (error) {
      // By a leader that died since: then it has succeeded, and cannot fail any more.
      if (this.signal.aborted || !(await this.isAllThere(receipts, marker))) throw error;
    }
    return [...gone];
  }

  private async isAllThere(receipts: Receipt[], marker: Marker): Promise<boolean> {
    const objects = [...receipts, { ...marker, size: Buffer.byteLength(marker.body) }];
    let isThere = true;
    await inLanes(objects, async ({ container, name, size }) => {
      const found = await this.store.head(container, name).catch(() => undefined);
      if (found?.size !== size) isThere = false;
    });
    return isThere;
  }

  /** @returns false: it is gone for good. */
  private async published(receipt: Receipt): Promise<boolean> {
    try {
      await this.store.publish(receipt);
      return true;
    } catch (error) {
      if (MrError.is(error, "corrupt")) return false;
      throw error;
    }
  }

  async sweep({ job, what, archive }: Of<"sweep">): Promise<void> {
    await failurePoint("master.sweep.before");
    if (archive !== undefined) await this.writeArchive(job.id, archive);
    await this.insist(
      "sweeping",
      job.id,
      async () => {
        await this.store.discardStaged(CONTAINER.intermediate, job.id);
        for (const place of [outputOf(job), badOutputOf(job)])
          await this.store.discardStaged(locationOf(place).container, job.id);
        if (what.objects !== "none")
          await this.deleteAll(
            CONTAINER.intermediate,
            what.objects === "maps" ? `${job.id}/map/` : `${job.id}/`,
          );
        if (what.logs) await this.deleteAll(CONTAINER.logs, `${job.id}/`);
      },
      () => Number.POSITIVE_INFINITY,
    );
  }

  /** Jobs of which there are map outputs, or results, in dfs-intermediate. */
  async collect(): Promise<{ maps: JobId[]; results: JobId[] }> {
    const maps = new Set<JobId>();
    const results = new Set<JobId>();
    if (!(await this.store.containerExists(CONTAINER.intermediate)))
      return { maps: [], results: [] };
    for await (const { name } of this.store.list(CONTAINER.intermediate)) {
      const [job = "", folder] = name.split("/");
      (folder === "map" ? maps : results).add(job);
    }
    return { maps: [...maps], results: [...results] };
  }

  private async deleteAll(container: string, prefix: string): Promise<void> {
    if (!(await this.store.containerExists(container))) return;
    const names: string[] = [];
    for await (const { name } of this.store.list(container, folderPrefix(prefix))) names.push(name);
    await inLanes(names, (name) => this.store.delete(container, name));
  }

  /** Keeps what is worth knowing of an ended job beside its logs. Best effort. */
  private async writeArchive(job: string, what: Archive): Promise<void> {
    try {
      await this.archive.write(job, what);
    } catch (error) {
      this.logger.warn({ job, error: messageOf(error) }, "the list of tasks was not archived");
    }
  }

  /**
   * Retries with growing, jittered waits: what may pass, until it does; any other failure so often.
   * @param refusalsMax how many of its kind are borne with.
   */
  private async insist<T>(
    what: string,
    job: JobId,
    body: () => Promise<T>,
    refusalsMax: (error: unknown) => number = () => 0,
  ): Promise<T> {
    for (let tries = 0, refusals = 0; ; tries += 1) {
      this.signal.throwIfAborted();
      try {
        return await body();
      } catch (error) {
        const passing = error instanceof MrError && error.retryable;
        if (!passing && refusals >= refusalsMax(error)) throw error;
        if (!passing) refusals += 1;
        this.logger.warn({ job, tries, error: messageOf(error) }, `${what} failed; trying again`);
        this.trouble(job, `${what} failed, and is tried again: ${messageOf(error)}`);
        const waitMs = Math.min(RETRY_MS_MAX, 100 * 2 ** Math.min(tries, 10));
        await delay(waitMs * (0.5 + Math.random()), undefined, { signal: this.signal });
      }
    }
  }
}
