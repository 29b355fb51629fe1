import { workerData } from "node:worker_threads";
import { serveSlot } from "../../internal/worker/slot_thread.ts";
import type { TaskRunnerOptions } from "../../internal/worker/task_context.ts";
import { TaskRunner } from "../../internal/worker/task_runner.ts";
import { openStore } from "../common/backends.ts";
import type { StorageConfig } from "../common/config.ts";

/** What a slot's thread is given. */
export interface SlotData {
  storage: StorageConfig;
  runner: TaskRunnerOptions;
}

// Node would print these itself, and wait for whoever reads the log.
process.removeAllListeners("warning");

const { storage, runner } = workerData as SlotData;
serveSlot(new TaskRunner(await openStore(storage, true), runner));
