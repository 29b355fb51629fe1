import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";

/** Data sets, each a folder named by what it depends on: what is there is whole, and used again. */
export class DataFolder {
  private readonly path: string;
  private readonly say: (line: string) => void;

  constructor(path: string, say: (line: string) => void) {
    this.path = path;
    this.say = say;
  }

  /** @returns the folder of a data set, which `make` fills if need be. */
  async get(name: string, make: (folder: string) => Promise<void>): Promise<string> {
    const folder = join(this.path, name);
    if (existsSync(folder)) return folder;
    const unfinished = `${folder}.unfinished`;
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished, { recursive: true });
    const startMs = performance.now();
    await make(unfinished);
    await rename(unfinished, folder);
    this.say(`made ${name} in ${((performance.now() - startMs) / 1_000).toFixed(1)} s`);
    return folder;
  }
}
