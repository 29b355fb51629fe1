import type { Logger } from "../model/logger.ts";

const SILENCE_MS = 10_000;
/** What comes from so many is told as from one. */
const KEYS_MAX = 50;

/** Says what may happen very often, since others bring it about, now and then: and how often it was. */
export class Seldom {
  private readonly logger: Logger;
  private readonly told = new Map<string, { atMs: number; since: number }>();

  constructor(logger: Logger) {
    this.logger = logger;
  }

  warn(who: string, fields: object, message: string): void {
    const nowMs = performance.now();
    for (const [key, { atMs, since }] of this.told)
      if (since === 0 && nowMs - atMs > SILENCE_MS) this.told.delete(key);
    const key = this.told.has(who) || this.told.size < KEYS_MAX ? who : "";
    const told = this.told.get(key);
    if (told !== undefined && nowMs - told.atMs < SILENCE_MS) {
      told.since += 1;
      return;
    }
    const more = told === undefined || told.since === 0 ? {} : { more: told.since };
    this.told.set(key, { atMs: nowMs, since: 0 });
    this.logger.warn({ ...fields, ...more }, message);
  }
}
