import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FailurePoint } from "../../internal/model/failure_point.ts";
import { until } from "./processes.ts";

const PRELOAD = new URL("./armed_process.ts", import.meta.url);

/** Orders to the processes that were started with `nodeArgs`; see armed_process.ts. */
export class FailurePoints {
  private readonly dir: string;

  /** @param dir an empty folder. */
  constructor(dir: string) {
    this.dir = dir;
  }

  get nodeArgs(): string[] {
    const url = new URL(PRELOAD);
    url.searchParams.set("dir", this.dir);
    return ["--import", url.href];
  }

  /** @param order `kill`, `stop`, `wait`, `fail CODE`; `@N`: at the Nth time. */
  arm(point: FailurePoint, order: string): void {
    for (const suffix of [".hit", ".taken", ".go"])
      rmSync(this.path(point) + suffix, { force: true });
    writeFileSync(this.path(point), order);
  }

  disarm(point: FailurePoint): void {
    rmSync(this.path(point), { force: true });
  }

  /** The pid of the process that was first there. */
  async hit(point: FailurePoint): Promise<number> {
    return until(`a process at ${point}`, () => this.wasHit(point), 60_000);
  }

  wasHit(point: FailurePoint): number | undefined {
    const path = `${this.path(point)}.hit`;
    return (existsSync(path) && Number(readFileSync(path, "utf8"))) || undefined;
  }

  /** Lets whoever waits there go on. */
  release(point: FailurePoint): void {
    writeFileSync(`${this.path(point)}.go`, "");
  }

  /** Sets the wall clock of all processes off by so much, in milliseconds. */
  setClock(offMs: number): void {
    writeFileSync(this.path("clock"), String(offMs));
  }

  /** While on, every HTTP/2 server sends GOAWAY on every connection, again and again. */
  goaway(on: boolean): void {
    if (on) writeFileSync(this.path("goaway"), "");
    else rmSync(this.path("goaway"), { force: true });
  }

  private path(name: string): string {
    return join(this.dir, name);
  }
}
