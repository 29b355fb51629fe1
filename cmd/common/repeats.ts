/** A line that is said again and again has its next turn after this time, then after twice as long. */
const WAIT_MS_MIN = 1_000;
const WAIT_MS_MAX = 60_000;
/** What differs where the reason is the same: ports, times, ids of requests. */
const NUMBERS = /[\da-f]{8}[\da-f-]*|\d+/gi;
/** Beyond, lines with the same message count as the same: errors have more texts than one thinks. */
const KINDS_MAX = 100;

type Say = (fields: object, message: string) => void;

interface Kind {
  message: string;
  /** Of the last one. */
  fields: object;
  /** How often it came since it was last said. */
  times: number;
}

/**
 * Says a warning when it comes, and one that repeats itself (the same message, the same error) at
 * growing intervals: the last of them, with `times`. Whoever waits for something tries several times
 * a second, and whoever is attacked is refused as often.
 */
export class Repeats {
  private readonly sink: Say;
  private readonly kinds = new Map<string, Kind>();

  constructor(sink: Say) {
    this.sink = sink;
  }

  say(fields: object, message: string): void {
    const key = this.keyOf(fields, message);
    const kind = this.kinds.get(key);
    if (kind !== undefined) {
      kind.fields = fields;
      kind.times += 1;
      return;
    }
    this.sink(fields, message);
    this.wait(key, { message, fields, times: 0 }, WAIT_MS_MIN);
  }

  private keyOf(fields: object, message: string): string {
    const error = "error" in fields ? String(fields.error).slice(0, 1_000) : "";
    const key = `${message}\n${error.replace(NUMBERS, "#")}`;
    return this.kinds.size < KINDS_MAX || this.kinds.has(key) ? key : message;
  }

  private wait(key: string, kind: Kind, waitMs: number): void {
    this.kinds.set(key, kind);
    const turn = () => {
      this.kinds.delete(key);
      if (kind.times === 0) return;
      this.sink({ ...kind.fields, times: kind.times }, kind.message);
      this.wait(key, { ...kind, times: 0 }, Math.min(WAIT_MS_MAX, waitMs * 2));
    };
    setTimeout(turn, waitMs).unref();
  }
}
