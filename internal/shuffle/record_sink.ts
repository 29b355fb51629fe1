/** Takes a record; true when `flush` must be awaited before the next. */
export interface RecordSink {
  add(count: number, keyBytes: number, from: Buffer, start: number, end: number): boolean;
  flush(): Promise<void>;
}
