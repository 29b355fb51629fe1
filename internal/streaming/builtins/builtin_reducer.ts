import type { Builtin } from "../../model/builtins.ts";
import { MrError } from "../../model/errors.ts";
import { AGGREGATE_FOLDS, type EmitValue, type Fold, PLAIN_FOLDS, type Role } from "./folds.ts";

export interface BuiltinReducerOptions {
  name: Exclude<Builtin, "identity">;
  role: Role;
  /** Of the separator between key and value, in bytes. */
  separatorBytes: number;
  /** Takes a pair of the result; true when `flush` is due. */
  emit: (key: Buffer, value: Buffer) => boolean;
  flush: () => Promise<void>;
}

const COLON = 58;

/** A reducer or combiner that is no script: takes sorted lines `key SEPARATOR value`, pair by pair. */
export class BuiltinReducer {
  private readonly options: BuiltinReducerOptions;
  private key: Buffer | undefined;
  private resultKey: Buffer = Buffer.alloc(0);
  private fold: Fold | undefined;
  private flushDue = false;
  private readonly emitValue: EmitValue;

  constructor(options: BuiltinReducerOptions) {
    this.options = options;
    this.emitValue = (value) => {
      if (options.emit(this.resultKey, value)) this.flushDue = true;
    };
  }

  add(count: number, keyBytes: number, bytes: Buffer, start: number, end: number): boolean {
    const keyEnd = start + keyBytes;
    const { key } = this;
    if (key === undefined || bytes.compare(key, 0, key.length, start, keyEnd) !== 0) {
      this.fold?.end(this.emitValue);
      this.begin(Buffer.from(bytes.subarray(start, keyEnd)));
    }
    const valueStart = Math.min(end, keyEnd + this.options.separatorBytes);
    if (this.fold?.add(bytes, valueStart, end, count, this.emitValue) !== true)
      throw this.refusal(bytes.subarray(valueStart, end));
    const due = this.flushDue;
    this.flushDue = false;
    return due;
  }

  async flush(): Promise<void> {
    await this.options.flush();
  }

  /** Ends the last key; call once. */
  async end(): Promise<void> {
    this.fold?.end(this.emitValue);
    await this.options.flush();
  }

  private begin(key: Buffer): void {
    const { name, role } = this.options;
    this.key = key;
    this.resultKey = key;
    if (name !== "aggregate") {
      this.fold = PLAIN_FOLDS[name]?.(role);
      return;
    }
    const colon = key.indexOf(COLON);
    const type = colon < 0 ? "" : key.toString("latin1", 0, colon);
    this.fold = Object.hasOwn(AGGREGATE_FOLDS, type) ? AGGREGATE_FOLDS[type]?.(role) : undefined;
    if (this.fold === undefined)
      throw new MrError(
        "user",
        `aggregate: the key ${shown(key)} does not begin with ${Object.keys(AGGREGATE_FOLDS).join(":, ")}:`,
      );
    if (role === "reduce") this.resultKey = key.subarray(colon + 1);
  }

  private refusal(value: Buffer): MrError {
    const { name } = this.options;
    const what = name === "aggregate" ? "what its key asks for" : "a number";
    return new MrError(
      "user",
      `${name}: the value ${shown(value)} of key ${shown(this.key ?? Buffer.alloc(0))} is not ${what}`,
    );
  }
}

function shown(bytes: Buffer): string {
  return JSON.stringify(bytes.toString("utf8", 0, Math.min(bytes.length, 100)));
}
