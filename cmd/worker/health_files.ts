import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const TOUCH_MS = 3_000;

/**
 * A worker has no port that could be asked how it is: it touches `alive` in a folder as long as
 * its main thread runs, and `ready` as long as it has a session with a leader. probe.sh looks.
 */
export class HealthFiles implements Disposable {
  private readonly folder: string;
  private readonly timer: NodeJS.Timeout;

  constructor(folder: string, isReady: () => boolean) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
    const touch = () => {
      writeFileSync(join(folder, "alive"), "");
      if (isReady()) writeFileSync(join(folder, "ready"), "");
      else this.remove("ready");
    };
    touch();
    this.timer = setInterval(touch, TOUCH_MS);
  }

  private remove(name: string): void {
    rmSync(join(this.folder, name), { force: true });
  }

  [Symbol.dispose](): void {
    clearInterval(this.timer);
    for (const name of ["ready", "alive"]) this.remove(name);
  }
}
