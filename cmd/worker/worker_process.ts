import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { hostname, totalmem } from "node:os";
import { join } from "node:path";
import type { Logger } from "../../internal/model/logger.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { MasterDialer } from "../../internal/rpc/dialer.ts";
import { Slots } from "../../internal/worker/slots.ts";
import { Worker } from "../../internal/worker/worker.ts";
import { openStore } from "../common/backends.ts";
import type { WorkerConfig } from "../common/config.ts";
import { createLogger, type ServerProcess } from "../common/run_process.ts";
import type { SlotData } from "./slot.ts";

const MB = 1024 * 1024;

/** A slot's share of the memory that this machine, or this container, has. */
function fairMemory(slots: number): number {
  const constrained = process.constrainedMemory();
  const total = constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
  return Math.max(256 * MB, Math.floor((total * 0.9) / slots));
}

/** One worker: a session with the leader, a thread per slot, a scratch folder of its own. */
export class WorkerProcess implements ServerProcess {
  private readonly config: WorkerConfig;
  private readonly logger: Logger;
  private readonly store: ObjectStore;
  private readonly id: string;
  private readonly scratch: string;
  private worker: Worker | undefined;

  static async open(config: WorkerConfig): Promise<WorkerProcess> {
    return new WorkerProcess(config, await openStore(config));
  }

  private constructor(config: WorkerConfig, store: ObjectStore) {
    this.config = config;
    this.logger = createLogger("worker", config.MR_LOG_LEVEL);
    this.store = store;
    // A name for one life: after a restart it is another worker, with no attempts.
    this.id = `${config.MR_WORKER_NAME}-${randomBytes(4).toString("hex")}`;
    this.scratch = join(config.MR_SCRATCH_DIR, this.id);
  }

  async start(): Promise<{ address: string }> {
    const { config } = this;
    await mkdir(this.scratch, { recursive: true });
    const data: SlotData = {
      storage: {
        BLOB_CONNECTION: config.BLOB_CONNECTION,
        AZURE_STORAGE_CONNECTION_STRING: config.AZURE_STORAGE_CONNECTION_STRING,
        MR_STORE_DIR: config.MR_STORE_DIR,
        MR_STORAGE_PATIENCE_MS: config.MR_STORAGE_PATIENCE_MS,
      },
      runner: {
        scratch: this.scratch,
        sortBytes: config.MR_SORT_MB * MB,
        lineBytesMax: config.MR_LINE_MB * MB,
        limits: {
          memoryBytes:
            config.MR_SCRIPT_MEMORY_MB === undefined
              ? fairMemory(config.MR_SLOTS)
              : config.MR_SCRIPT_MEMORY_MB * MB,
          processes: config.MR_SCRIPT_PROCESSES,
          outputBytes: config.MR_SCRIPT_OUTPUT_MB * MB,
        },
        code: { modules: config.MR_MODULES === "on", pipIndexUrl: config.MR_PIP_INDEX_URL },
      },
    };
    this.worker = new Worker({
      info: { id: this.id, host: hostname(), pid: process.pid, slots: config.MR_SLOTS },
      dialer: new MasterDialer(config.RPC_ADDRESS.split(",").map((address) => address.trim())),
      store: this.store,
      logger: this.logger,
      slots: (onFinished) =>
        new Slots({
          entry: new URL("./slot.ts", import.meta.url),
          workerData: data,
          count: config.MR_SLOTS,
          onFinished,
        }),
    });
    this.worker.start();
    this.logger.info({ worker: this.id, slots: config.MR_SLOTS }, "started");
    return { address: this.id };
  }

  async close(): Promise<void> {
    await this.worker?.stop(this.config.MR_GRACE_MS);
    await this.store.close();
    await rm(this.scratch, { recursive: true, force: true, maxRetries: 3 });
  }
}
