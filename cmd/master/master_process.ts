import { hostname } from "node:os";
import { Master } from "../../internal/master/master.ts";
import { hostPort, isLoopback, listenHost } from "../../internal/model/addresses.ts";
import type { Coordinator } from "../../internal/model/coordinator.ts";
import type { Logger } from "../../internal/model/logger.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { RpcServer } from "../../internal/rpc/server.ts";
import { masterRoutes } from "../../internal/rpc/services.ts";
import { SessionServer } from "../../internal/rpc/session_server.ts";
import { DEFAULT_SCHEDULER_CONFIG } from "../../internal/scheduler/state.ts";
import { openCoordinator, openStore } from "../common/backends.ts";
import type { MasterConfig } from "../common/config.ts";
import { createLogger } from "../common/logger.ts";
import { openCertificates } from "../common/pem_files.ts";
import type { ServerProcess } from "../common/run_process.ts";

const PING_INTERVAL_MS = 2_000;
const PING_TIMEOUT_MS = 3_000;

/** One master: RPC server, coordinator, store, and the campaign for leadership. */
export class MasterProcess implements ServerProcess {
  private readonly config: MasterConfig;
  private readonly logger: Logger;
  private readonly coordinator: Coordinator;
  private readonly store: ObjectStore;
  private readonly master: Master;
  private readonly server: RpcServer;
  private serving = false;

  static async open(config: MasterConfig): Promise<MasterProcess> {
    const logger = createLogger("master", config.MR_LOG_LEVEL);
    const coordinator = await openCoordinator(config, logger);
    return new MasterProcess(config, logger, coordinator, await openStore(config));
  }

  private constructor(
    config: MasterConfig,
    logger: Logger,
    coordinator: Coordinator,
    store: ObjectStore,
  ) {
    this.config = config;
    this.logger = logger;
    this.coordinator = coordinator;
    this.store = store;
    this.master = new Master({
      coordinator: this.coordinator,
      store: this.store,
      logger: this.logger,
      networkAllowed: config.MR_NETWORK_JOBS === "allow",
      scheduler: {
        ...DEFAULT_SCHEDULER_CONFIG,
        heartbeatMs: config.MR_HEARTBEAT_MS,
        leaseMs: config.MR_LEASE_MS,
        reconnectMs: config.MR_RECONNECT_MS,
      },
    });
    this.server = new RpcServer({
      routes: masterRoutes({
        jobs: this.master,
        locator: this.master,
        serving: () => this.serving,
      }),
      sessions: new SessionServer(this.master),
      pingIntervalMs: PING_INTERVAL_MS,
      pingTimeoutMs: PING_TIMEOUT_MS,
      certificates: openCertificates(config, this.logger),
      logger: this.logger,
    });
  }

  async start(): Promise<{ address: string }> {
    const { config, logger } = this;
    const isHere = isLoopback(config.POD_IP);
    if (!isHere && config.MR_TLS_CERT === undefined)
      logger.warn({}, "anybody who reaches the RPC port may run programs: set MR_TLS_*");
    const host = listenHost(isHere ? config.POD_IP : "::");
    const port = await this.server.listen(host, config.RPC_PORT);
    const address = config.RPC_ADDRESS ?? hostPort(config.POD_IP, port);
    this.master.start({ id: `${hostname()}-${process.pid}`, address, pid: process.pid });
    this.serving = true;
    logger.info({ address }, "listening");
    return { address };
  }

  async close(): Promise<void> {
    this.serving = false;
    await this.master.stop();
    await this.server.close();
    await this.coordinator.close();
    await this.store.close();
  }
}
