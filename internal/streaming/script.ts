/** How a run of a user's code ended. */
export interface ScriptEnd {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** The limit it was ended for, in words. */
  over: string | undefined;
}

/** One run of a user's code, whatever runs it: LF-ended lines in, lines out. */
export interface Script {
  /** Resolves when it has ended and all its output was taken. */
  readonly ended: Promise<ScriptEnd>;
  /** Whether it ended before it had read all its input; known once all was offered to it. */
  readonly inputUnread: boolean;
  /** Resolves when the chunk's memory may be used again; false: it reads no more. */
  write(chunk: Uint8Array): Promise<boolean>;
  endInput(): void;
  /** Ends it and all it started: nobody wants its output. */
  kill(): void;
}
