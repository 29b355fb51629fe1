import { MrError } from "../model/errors.ts";
import type { TaskKind } from "../model/ids.ts";
import type { TaskView } from "../model/job.ts";
import { CONTAINER, joinName } from "../model/names.ts";
import { type ObjectStore, readAll } from "../model/object_store.ts";
import { inputRangeSchema, segmentsSchema, type TaskPlan, taskPlanSchema } from "../model/task.ts";
import type { Archive } from "../scheduler/events.ts";
import { Gate } from "./lanes.ts";
import { Turns } from "./turns.ts";

/**
 * What is kept of an ended job beside its logs, a line of JSON for each thing: whoever asks for one
 * task is answered from its own lines, and nothing is parsed at one go.
 *
 *   tasks.jsonl  the tasks
 *   plan.jsonl   the input ranges of each map task, in order; the cuts, or null; the map outputs
 *   plan.index   numbers of 8 bytes: how many maps and reduces; where in plan.jsonl the ranges of
 *                each map task begin, where the cuts do, and its end
 */
const TASKS = "tasks.jsonl";
const PLAN = "plan.jsonl";
const INDEX = "plan.index";
/** As they were: each one value. */
const TASKS_WHOLE = "tasks.json";
const PLAN_WHOLE = "plan.json";
/** A plan of more input ranges is not kept for running tasks again. */
const RANGES_MAX = 50_000;
const READS_AT_A_TIME = 2;
const WAITING_MAX = 32;

export class JobArchive {
  private readonly store: ObjectStore;
  private readonly gate = new Gate(READS_AT_A_TIME, WAITING_MAX);

  constructor(store: ObjectStore) {
    this.store = store;
  }

  async write(job: string, { tasks, plan }: Archive): Promise<void> {
    await this.store.ensureContainer(CONTAINER.logs);
    const lines = new Lines();
    for (const task of tasks) await lines.add(task);
    await this.create(job, TASKS, lines.bytes());
    const ranges = plan.splits.reduce((sum, split) => sum + split.length, 0);
    if (ranges <= RANGES_MAX) await this.writePlan(job, plan);
  }

  private async writePlan(job: string, plan: TaskPlan): Promise<void> {
    const lines = new Lines();
    const index = [plan.maps, plan.reduces];
    for (let map = 0; map < plan.maps; map += 1) {
      index.push(lines.size);
      for (const range of plan.splits[map] ?? []) await lines.add(range);
    }
    index.push(lines.size);
    await lines.add(plan.cuts ?? null);
    for (const source of plan.sources) await lines.add(source);
    index.push(lines.size);
    await this.create(job, PLAN, lines.bytes());
    const bytes = Buffer.alloc(index.length * NUMBER_BYTES);
    for (const [at, number] of index.entries()) bytes.writeDoubleLE(number, at * NUMBER_BYTES);
    await this.create(job, INDEX, bytes);
  }

  private async create(job: string, name: string, bytes: Uint8Array): Promise<void> {
    await this.store.create(CONTAINER.logs, joinName(job, name), bytes);
  }

  /** @throws MrError `too_many` when many ask at a time. */
  async readTasks(job: string): Promise<TaskView[]> {
    return this.gate.pass(async () => {
      const bytes = await this.read(job, TASKS);
      if (bytes !== undefined) return (await parsed(bytes)) as TaskView[];
      const whole = await this.read(job, TASKS_WHOLE);
      return whole === undefined ? [] : (JSON.parse(whole.toString()) as TaskView[]);
    });
  }

  /**
   * As much of the plan as one task is made from.
   * @throws MrError `not_found` when there is none, `too_many` when many ask at a time.
   */
  async readPlan(job: string, task: { kind: TaskKind; index: number }): Promise<TaskPlan> {
    return this.gate.pass(async () => {
      const counts = await this.readNumbers(job, 0);
      if (counts === undefined) return this.readWholePlan(job);
      const [maps, reduces] = counts;
      const plan: TaskPlan = { splits: [], sources: [], maps, reduces };
      if (task.kind === "map" && task.index >= maps) return plan;
      const at = task.kind === "map" ? task.index : maps;
      const lines = await this.readLines(job, (await this.readNumbers(job, 2 + at)) ?? [0, 0]);
      if (task.kind === "map") {
        plan.splits[task.index] = lines.map((line) => inputRangeSchema.parse(line));
        return plan;
      }
      const [cuts, ...sources] = lines;
      return {
        ...plan,
        ...(cuts !== null && { cuts: cuts as string[] }),
        sources: sources.map((line) => segmentsSchema.parse(line)),
      };
    });
  }

  private async readWholePlan(job: string): Promise<TaskPlan> {
    const bytes = await this.read(job, PLAN_WHOLE);
    if (bytes !== undefined) return taskPlanSchema.parse(JSON.parse(bytes.toString()));
    throw new MrError("not_found", `of job ${job} it is no longer known what its tasks read`);
  }

  /** Two of the index, from the nth on. */
  private async readNumbers(job: string, nth: number): Promise<[number, number] | undefined> {
    const range = { start: nth * NUMBER_BYTES, length: 2 * NUMBER_BYTES };
    const bytes = await this.read(job, INDEX, range);
    return bytes && [bytes.readDoubleLE(0), bytes.readDoubleLE(NUMBER_BYTES)];
  }

  private async readLines(job: string, [start, end]: [number, number]): Promise<unknown[]> {
    if (start === end) return [];
    const bytes = await this.read(job, PLAN, { start, length: end - start });
    return parsed(bytes ?? Buffer.alloc(0));
  }

  private async read(
    job: string,
    name: string,
    range: { start?: number; length?: number } = {},
  ): Promise<Buffer | undefined> {
    try {
      return await readAll(this.store.read(CONTAINER.logs, joinName(job, name), range));
    } catch (error) {
      if (MrError.is(error, "not_found")) return undefined;
      throw error;
    }
  }
}

const NUMBER_BYTES = 8;
const NEWLINE = 10;

/** Lines of JSON, written in turns. */
class Lines {
  size = 0;
  private readonly parts: Buffer[] = [];
  private readonly turns = new Turns();

  async add(item: unknown): Promise<void> {
    const line = Buffer.from(`${JSON.stringify(item)}\n`);
    this.parts.push(line);
    this.size += line.length;
    await this.turns.next();
  }

  bytes(): Buffer {
    return Buffer.concat(this.parts);
  }
}

async function parsed(bytes: Buffer): Promise<unknown[]> {
  const turns = new Turns();
  const items: unknown[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(NEWLINE, at);
    items.push(JSON.parse(bytes.toString("utf8", at, end)));
    at = end + 1;
    await turns.next();
  }
  return items;
}
