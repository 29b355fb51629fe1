import { printable } from "../../internal/model/printable.ts";
import type { JobJson } from "./client.ts";
import { bytes, duration } from "./format.ts";

const BAR_CELLS = 24;
/** Where there is no terminal, a line at most this often. */
const PLAIN_MS = 2_000;
/** Rates are taken over this long. */
const WINDOW_MS = 5_000;

/** Progress bars of a job on a terminal; elsewhere now and then a line. Writes to stderr. */
export class ProgressView {
  private readonly out: NodeJS.WriteStream;
  private readonly map = new Meter();
  private readonly shuffle = new Meter();
  private readonly reduce = new Meter();
  private drawn = 0;
  private lastPlainMs = Number.NEGATIVE_INFINITY;
  private lastState = "";

  constructor(out: NodeJS.WriteStream) {
    this.out = out;
  }

  show(job: JobJson): void {
    const nowMs = performance.now();
    this.map.add(nowMs, job.map.bytes_done);
    this.shuffle.add(nowMs, job.shuffle.bytes_done);
    this.reduce.add(nowMs, job.reduce.done);
    if (this.out.isTTY) return this.draw(job);
    const state = stepOf(job) + job.state;
    if (state === this.lastState && nowMs - this.lastPlainMs < PLAIN_MS) return;
    this.lastState = state;
    this.lastPlainMs = nowMs;
    const { map, reduce } = job;
    const line = `${job.id} ${stepOf(job)}${job.state.padEnd(10)} map ${map.done}/${map.total}  reduce ${reduce.done}/${reduce.total}${troubles(job)}`;
    this.out.write(`${printable(line)}\n`);
  }

  private draw(job: JobJson): void {
    const width = (this.out.columns ?? 80) - 1;
    const lines = this.lines(job).map((line) => printable(line.slice(0, width)));
    if (this.drawn > 0) this.out.write(`\u001b[${this.drawn}A`);
    for (const line of lines) this.out.write(`\u001b[2K${line}\n`);
    this.drawn = lines.length;
  }

  private lines(job: JobJson): string[] {
    const { map, shuffle, reduce } = job;
    const lines = [`job ${job.id}  ${stepOf(job)}${job.state}${troubles(job)}`];
    lines.push(
      `  map     ${bar(map.bytes_done, map.bytes_total, map.done, map.total)} ${map.done}/${map.total}` +
        rest(this.map, map.bytes_done, map.bytes_total, map.done < map.total),
    );
    if (reduce.total === 0) return lines;
    lines.push(
      `  shuffle ${bar(shuffle.bytes_done, shuffle.bytes_total, reduce.done, reduce.total)} ` +
        `${bytes(shuffle.bytes_done)} of ${bytes(shuffle.bytes_total)}` +
        rest(this.shuffle, shuffle.bytes_done, shuffle.bytes_total, job.state === "reduce"),
    );
    const share = shuffle.bytes_total > 0 ? shuffle.bytes_done / shuffle.bytes_total : 0;
    const left = job.state === "reduce" ? this.shuffle.leftMs(shuffle.bytes_total) : undefined;
    lines.push(
      `  reduce  ${bar(Math.max(share, reduce.done / reduce.total), 1, reduce.done, reduce.total)} ` +
        `${reduce.done}/${reduce.total}  ${reduce.running} running` +
        (left === undefined ? "" : `  ${duration(left)} left`),
    );
    return lines;
  }
}

/** Of a job with steps: which one it is at. */
function stepOf({ steps = [] }: JobJson): string {
  if (steps.length === 0) return "";
  const begun = steps.findLastIndex(({ id }) => id !== undefined);
  return `step ${begun + 1}/${steps.length} `;
}

function troubles({ attempts: { failed, lost } }: JobJson): string {
  return failed + lost === 0 ? "" : `  attempts: ${failed} failed, ${lost} lost`;
}

function rest(meter: Meter, done: number, total: number, active: boolean): string {
  if (!active || meter.rate <= 0) return `  ${bytes(done)}`;
  const left = meter.leftMs(total);
  return `  ${bytes(meter.rate)}/s${left === undefined ? "" : `  ${duration(left)} left`}`;
}

function bar(done: number, total: number, tasksDone: number, tasks: number): string {
  // Bytes tell more than tasks, but only tasks tell that all is done.
  const share = tasks > 0 && tasksDone === tasks ? 1 : total > 0 ? Math.min(0.99, done / total) : 0;
  const full = Math.floor(share * BAR_CELLS);
  const percent = String(Math.floor(share * 100)).padStart(3);
  return `[${"#".repeat(full)}${".".repeat(BAR_CELLS - full)}] ${percent} %`;
}

/** A rate over the last few seconds. */
class Meter {
  private samples: { ms: number; value: number }[] = [];

  add(ms: number, value: number): void {
    this.samples.push({ ms, value });
    while (this.samples.length > 2 && ms - (this.samples[0]?.ms ?? ms) > WINDOW_MS)
      this.samples.shift();
  }

  /** Per second. */
  get rate(): number {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (first === undefined || last === undefined || last.ms - first.ms < 200) return 0;
    return ((last.value - first.value) * 1000) / (last.ms - first.ms);
  }

  leftMs(total: number): number | undefined {
    const last = this.samples.at(-1);
    if (last === undefined || this.rate <= 0) return undefined;
    return (Math.max(0, total - last.value) * 1000) / this.rate;
  }
}
