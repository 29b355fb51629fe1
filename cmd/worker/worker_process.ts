import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { hostname, totalmem } from "node:os";
import { join } from "node:path";
import type { Logger } from "../../internal/model/logger.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { MasterDialer } from "../../internal/rpc/dialer.ts";
import { searchedAmong } from "../../internal/streaming/command.ts";
import { Runner, type RunnerAbout } from "../../internal/streaming/runner.ts";
import type { ScriptLimits } from "../../internal/streaming/script_process.ts";
import { Slots } from "../../internal/worker/slots.ts";
import { Worker } from "../../internal/worker/worker.ts";
import { openStore } from "../common/backends.ts";
import { ConfigError, type WorkerConfig } from "../common/config.ts";
import { createLogger } from "../common/logger.ts";
import { openCertificates } from "../common/pem_files.ts";
import type { ServerProcess } from "../common/run_process.ts";
import { HealthFiles } from "./health_files.ts";
import { type MemoryPlan, planMemory } from "./memory_plan.ts";
import type { SlotData } from "./slot.ts";

const MB = 1024 * 1024;

/** Of one script, of which there may be so many at a time. @param memoryBytes for all of them. */
function limitsOf(config: WorkerConfig, scripts: number, memoryBytes: number): ScriptLimits {
  const share = Math.max(256 * MB, Math.floor((memoryBytes * 0.9) / scripts));
  const { MR_SCRIPT_MEMORY_MB } = config;
  return {
    memoryBytes: MR_SCRIPT_MEMORY_MB === undefined ? share : MR_SCRIPT_MEMORY_MB * MB,
    processes: config.MR_SCRIPT_PROCESSES,
    cpuSeconds: config.MR_SCRIPT_CPU_S,
    fileBytes: config.MR_SCRIPT_FILE_MB * MB,
    openFiles: config.MR_SCRIPT_OPEN_FILES,
    outputBytes: config.MR_SCRIPT_OUTPUT_MB * MB,
  };
}

const OPEN_RUNNER =
  "scripts run as this worker's own user, and can reach what it can, its credentials too: see MR_RUNNER";
const NO_LANDLOCK =
  "this kernel has no Landlock: scripts that run here at the same time can read each other's files";

const LONG_LINES =
  "MR_LINE_MB is more than fits this worker's memory: a job with lines so long can end it";

/** Whether there is something here that is not everybody's. */
function isShared(config: WorkerConfig): boolean {
  return config.MR_STORE_DIR === undefined || config.MR_TLS_KEY !== undefined;
}

/** One worker: a session with the leader, a thread per slot, a scratch folder of its own. */
export class WorkerProcess implements ServerProcess {
  private readonly config: WorkerConfig;
  private readonly logger: Logger;
  private readonly store: ObjectStore;
  private readonly id: string;
  private readonly scratch: string;
  /** Where a runner with other mounts looks; undefined: in the scratch folder. */
  private readonly layouts: string | undefined;
  private runner: Runner | undefined;
  private worker: Worker | undefined;
  private health: HealthFiles | undefined;

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
    this.layouts = config.MR_LAYOUT_DIR && join(config.MR_LAYOUT_DIR, this.id);
  }

  async start(): Promise<{ address: string }> {
    const { config } = this;
    await mkdir(this.scratch, { recursive: true, mode: 0o700 });
    this.runner = await Runner.open({
      socket: config.MR_RUNNER,
      folder: join(this.scratch, "scripts"),
      graceMs: config.MR_GRACE_MS,
      logger: this.logger,
    });
    const { about } = this.runner;
    await this.refuseUsersPrograms(about.folder);
    this.sayWhoReachesWhat(about);
    const plan = this.planMemory(about);
    const data: SlotData = {
      storage: {
        BLOB_CONNECTION: config.BLOB_CONNECTION,
        AZURE_STORAGE_CONNECTION_STRING: config.AZURE_STORAGE_CONNECTION_STRING,
        AZURE_STORAGE_ACCOUNT: config.AZURE_STORAGE_ACCOUNT,
        MR_STORE_DIR: config.MR_STORE_DIR,
        MR_STORAGE_PATIENCE_MS: config.MR_STORAGE_PATIENCE_MS,
      },
      runner: {
        scratch: this.scratch,
        layouts: this.layouts,
        files: { oneBytes: config.MR_FILE_MB * MB, allBytes: config.MR_FILES_MB * MB },
        sortBytes: config.MR_SORT_MB * MB,
        lineBytesMax: plan.lineBytesMax,
        mergeBytes: plan.mergeBytes,
        limits: {
          map: limitsOf(config, config.MR_SLOTS, about.memoryBytes),
          reduce: limitsOf(config, config.MR_SLOTS * config.MR_REDUCES_PER_SLOT, about.memoryBytes),
        },
        code: { runner: this.runner.address, pipIndexUrl: config.MR_PIP_INDEX_URL },
      },
    };
    this.worker = new Worker({
      info: {
        id: this.id,
        host: hostname(),
        pid: process.pid,
        slots: config.MR_SLOTS,
        reducesPerSlot: config.MR_REDUCES_PER_SLOT,
      },
      dialer: new MasterDialer(
        config.RPC_ADDRESS.split(",").map((address) => address.trim()),
        openCertificates(config, this.logger),
      ),
      store: this.store,
      logger: this.logger,
      slots: (listener) =>
        new Slots({
          entry: new URL("./slot.ts", import.meta.url),
          workerData: data,
          count: config.MR_SLOTS,
          heapMb: plan.heapMb,
          ...listener,
        }),
    });
    const { worker } = this;
    worker.start();
    if (config.MR_HEALTH_DIR !== undefined)
      this.health = new HealthFiles(config.MR_HEALTH_DIR, () => worker.hasSession);
    this.logger.info({ worker: this.id, slots: config.MR_SLOTS }, "started");
    return { address: this.id };
  }

  async close(): Promise<void> {
    await this.worker?.stop(this.config.MR_GRACE_MS);
    this.health?.[Symbol.dispose]();
    await this.runner?.[Symbol.asyncDispose]();
    await this.store.close();
    for (const folder of [this.scratch, this.layouts ?? []].flat())
      await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }

  /** Programs of users must never be what this process finds. */
  private async refuseUsersPrograms(scripts: string): Promise<void> {
    const folder = await searchedAmong([this.scratch, scripts, this.layouts ?? []].flat());
    if (folder !== undefined)
      throw new ConfigError(`PATH names ${folder}, where the files of users lie`);
  }

  private planMemory(about: RunnerAbout): MemoryPlan {
    const { MR_SLOTS, MR_REDUCES_PER_SLOT, MR_SORT_MB, MR_LINE_MB } = this.config;
    const plan = planMemory({
      memoryBytes: Math.min(totalmem(), process.constrainedMemory() || totalmem()),
      // The first process of a container is in one of its own.
      isShared: about.pid !== 1,
      slots: MR_SLOTS,
      reducesPerSlot: MR_REDUCES_PER_SLOT,
      sortBytes: MR_SORT_MB * MB,
      lineBytes: MR_LINE_MB === undefined ? undefined : MR_LINE_MB * MB,
    });
    const said = { lineMb: plan.lineBytesMax / MB, fitsMb: plan.lineBytesFit / MB };
    if (plan.lineBytesMax > plan.lineBytesFit) this.logger.warn(said, LONG_LINES);
    else this.logger.info(said, "the longest line of a script");
    return plan;
  }

  private sayWhoReachesWhat({ closed, landlock, uid, pid }: RunnerAbout): void {
    const about = { closed, landlock, uid, runner: pid };
    if (!closed && isShared(this.config)) this.logger.warn(about, OPEN_RUNNER);
    else if (closed && landlock === 0) this.logger.warn(about, NO_LANDLOCK);
    else this.logger.info(about, "scripts have a runner");
  }
}
