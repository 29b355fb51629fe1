import { createServer, type Server } from "node:http";
import { createApp } from "../../internal/http/app.ts";
import { noTokens, TokenFile } from "../../internal/http/token_file.ts";
import type { Coordinator } from "../../internal/model/coordinator.ts";
import type { Logger } from "../../internal/model/logger.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { LeaderJobApi } from "../../internal/rpc/leader_job_api.ts";
import { openCoordinator, openStore } from "../common/backends.ts";
import type { ProxyConfig } from "../common/config.ts";
import { openCertificates } from "../common/pem_files.ts";
import { createLogger, isLoopback, type ServerProcess } from "../common/run_process.ts";

/** One proxy: HTTP in, the leader's JobApi and the store behind it. Keeps no state. */
export class ProxyProcess implements ServerProcess {
  private readonly config: ProxyConfig;
  private readonly logger: Logger;
  private readonly coordinator: Coordinator;
  private readonly store: ObjectStore;
  private readonly jobs: LeaderJobApi;
  private readonly server: Server;

  static async open(config: ProxyConfig): Promise<ProxyProcess> {
    const logger = createLogger("proxy", config.MR_LOG_LEVEL);
    const coordinator = await openCoordinator(config, logger);
    return new ProxyProcess(config, logger, coordinator, await openStore(config));
  }

  private constructor(
    config: ProxyConfig,
    logger: Logger,
    coordinator: Coordinator,
    store: ObjectStore,
  ) {
    this.config = config;
    this.logger = logger;
    this.coordinator = coordinator;
    this.store = store;
    this.jobs = new LeaderJobApi(
      this.coordinator,
      config.MR_PATIENCE_MS,
      openCertificates(config, this.logger),
    );
    const app = createApp({
      jobs: this.jobs,
      locator: this.coordinator,
      store: this.store,
      logger: this.logger,
      authenticate:
        config.MR_TOKENS === undefined
          ? noTokens
          : new TokenFile(config.MR_TOKENS, this.logger).authenticate,
    });
    this.server = createServer(app.callback());
    // Uploads and progress streams take as long as they take.
    this.server.requestTimeout = 0;
  }

  async start(): Promise<{ address: string }> {
    const { HTTP_HOST, HTTP_PORT } = this.config;
    await new Promise<void>((resolve, reject) => {
      this.server.once("error", reject);
      this.server.listen(HTTP_PORT, HTTP_HOST, resolve);
    });
    const bound = this.server.address();
    const port = bound !== null && typeof bound === "object" ? bound.port : HTTP_PORT;
    const address = `${HTTP_HOST}:${port}`;
    if (!isLoopback(HTTP_HOST) && this.config.MR_TOKENS === undefined)
      this.logger.warn(
        { address },
        "anybody who reaches this port may run programs: set MR_TOKENS",
      );
    this.logger.info({ address }, "listening");
    return { address };
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.server.closeIdleConnections();
    setTimeout(() => this.server.closeAllConnections(), 500).unref();
    await closed;
    this.jobs.close();
    await this.coordinator.close();
    await this.store.close();
  }
}
