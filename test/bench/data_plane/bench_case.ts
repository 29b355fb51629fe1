import type { Role } from "../../../cmd/mr/local_cluster.ts";
import type { DataFolder } from "./data_folder.ts";
import type { Sizes } from "./settings.ts";

/** The words of the bench: a case, its contestants, what they are measured by. */

/** A case by name; its data is made when its turn comes. */
export interface BenchCase {
  name: string;
  prepare(site: Site): Promise<Prepared>;
}

/** What there is to prepare a case with. */
export interface Site {
  sizes: Sizes;
  data: DataFolder;
  /** The canonical scripts, made to run under the one interpreter. */
  scripts: Scripts;
}

export interface Scripts {
  mapper: string;
  reducer: string;
  /** A JavaScript module that maps. */
  module: string;
}

export interface Prepared {
  /** What is done, with the sizes. */
  title: string;
  /** Files to link into the object store, by container. */
  inputs: Record<string, string[]>;
  /** Each round runs them in this order. */
  contestants: Contestant[];
  /** Names of contestants that all others are put in ratio to; the first one's drift is watched. */
  yardsticks: string[];
  targets: Target[];
  rounds: number;
  /** A slow contestant that is not there, or whatever the reader should know. */
  notes?: string[];
  /** Too short for `sync` in between and for a look at what others did. */
  brief?: boolean;
}

export type Contestant = ShellContestant | JobContestant;

interface ContestantBase {
  name: string;
  expected: Expected;
  /** Slow and no yardstick of a target: only in the first round, without a warm-up. */
  once?: boolean;
}

export interface ShellContestant extends ContestantBase {
  kind: "shell";
  /** For bash, in an empty folder; leaves its result there as `part-*`. */
  script: string;
}

export interface JobContestant extends ContestantBase {
  kind: "job";
  /** Body of POST /request. */
  request: object;
}

/** The one right result. `sorted`: by lines, each part too; `concatenated`: the parts one after the other. */
export interface Expected {
  order: "sorted" | "concatenated";
  md5: string;
}

export interface Measured {
  wallMs: number;
  /** Of everything that a shell contestant runs; of a job, of the scripts alone. */
  scriptsCpuMs: number;
  /** Of proxy, master and worker; 0 in the shell. */
  ownCpuMs: number;
  /** Of the largest process that is not a script of a job. */
  peakBytes: number;
  peaks?: Record<Role, number>;
}

/** What a run has made, until it is discarded. */
export interface Outcome {
  sample: Measured;
  parts: string[];
  discard(): Promise<void>;
}

export interface Sample extends Measured {
  /** Processors that others took meanwhile: 0.15 is 150 ms in every second. */
  othersCores: number;
}

/** Samples by contestant. */
export type Round = Map<string, Sample>;

export interface CaseResult {
  name: string;
  prepared: Prepared;
  rounds: Round[];
  disturbances: string[];
}

/** What is to be reached; `max` is met by what equals it. */
export type Target =
  | { kind: "wall"; of: string; to: string; max: number }
  | { kind: "ownCpu"; of: string; max: number }
  | { kind: "workerPeakMb"; of: string; max: number }
  | { kind: "medianMs"; of: string; max: number };
