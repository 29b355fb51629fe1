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
  /** What a master is asked by other parts, as one message: a specification with its key; */
  submitBytes: 640 * 1024,
  /** a list, with all the places that a client may see; */
  viewerBytes: 256 * 1024,
  /** and anything else. */
  smallRequestBytes: 1024,
  /** Of what it says in one of these: fields, entries and elements. */
  requestParts: 50_000,
  /** Jobs that are not ended. */
  queuedJobs: 1_000,
  /** Of these, one client's that has a token. */
  queuedJobsPerOwner: 250,
  /** The index of one map output: of 2,000 partitions, or of ranges (shuffle/key_index.ts). */
  runIndexBytes: 32 * 1024 * 1024,
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
  /** Of all entries of `data` together, with their alternatives written out. */
  patternChars: 1_000_000,
  /** Faults of a request that are told; one that has more is no request. */
  violations: 100,
  steps: 50,
  /** Items of a list in one answer, and where nobody said how many. */
  page: 1_000,
  pageDefault: 100,
  /** Of a text in a list, in characters: the whole is where the one item is. */
  listedChars: 200,
} as const;
