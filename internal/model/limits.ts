/** What a request may ask for at most, and a cluster hold; beyond it there is a clear error. */
export const LIMIT = {
  bodyBytes: 256 * 1024,
  maps: 10_000,
  reduces: 2_000,
  mapsTimesReduces: 10_000_000,
  /** Of env, and of conf. */
  envBytes: 32 * 1024,
  /** Of a checked request, as it is stored. */
  specBytes: 512 * 1024,
  /** Jobs that are not ended. */
  queuedJobs: 1_000,
  /** Input ranges in one map task: its grant must fit one message. */
  rangesPerTask: 20_000,
  /** Distinct names; what a task counts beyond them is dropped, so that the report stays small. */
  countersPerJob: 500,
  /** Input records that a job may set aside. */
  badRecords: 100_000,
  /** Input blobs of one job. */
  inputBlobs: 1_000_000,
  /** Entries of `data`. */
  inputs: 1_000,
  steps: 50,
} as const;
