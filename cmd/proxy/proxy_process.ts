import { createServer, type Server } from "node:http";
import { createApp } from "../../internal/http/app.ts";
import { noTokens, TokenFile } from "../../internal/http/token_file.ts";
import { hostPort, isLoopback, listenHost } from "../../internal/model/addresses.ts";
import type { Coordinator } from "../../internal/model/coordinator.ts";
import type { Logger } from "../../internal/model/logger.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { LeaderJobApi } from "../../internal/rpc/leader_job_api.ts";
import { openCoordinator, openStore } from "../common/backends.ts";
import type { ProxyConfig } from "../common/config.ts";
import { drained } from "../common/drained.ts";
import { createLogger } from "../common/logger.ts";
import { openCertificates } from "../common/pem_files.ts";
import type { ServerProcess } from "../common/run_process.ts";

/** Longer than balancers keep a connection without requests: else they meet one just closed. */
const KEEP_ALIVE_MS = 80_000;
/** A connection on which nothing moves for so long, in either direction, is given up. */
const IDLE_MS = 180_000;
const CONNECTIONS_MAX = 10_000;

/** One proxy: HTTP in, the leader's JobApi and the store behind it. Keeps no state. */
export class ProxyProcess implements ServerProcess {
  private readonly config: ProxyConfig;
  private readonly logger: Logger;
  private readonly coordinator: Coordinator;
  private readonly store: ObjectStore;
  private readonly jobs: LeaderJobApi;
  private readonly server: Server;
  private isReady = true;

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
    const { app } = createApp({
      jobs: this.jobs,
      locator: this.coordinator,
      store: this.store,
      logger: this.logger,
      authenticate:
        config.MR_TOKENS === undefined
          ? noTokens
          : new TokenFile(config.MR_TOKENS, this.logger).authenticate,
      origin: { hosts: config.MR_HTTP_HOSTS, asksForTokens: config.MR_TOKENS !== undefined },
      ready: () => this.isReady,
    });
    this.server = createServer(app.callback());
    // Uploads and progress streams take as long as they take, if anything moves.
    this.server.requestTimeout = 0;
    this.server.timeout = IDLE_MS;
    this.server.keepAliveTimeout = KEEP_ALIVE_MS;
    this.server.maxConnections = CONNECTIONS_MAX;
  }

  async start(): Promise<{ address: string }> {
    const { HTTP_HOST, HTTP_PORT } = this.config;
    await new Promise<void>((resolve, reject) => {
      this.server.once("error", reject);
      this.server.listen(HTTP_PORT, listenHost(HTTP_HOST), resolve);
    });
    const bound = this.server.address();
    const port = bound !== null && typeof bound === "object" ? bound.port : HTTP_PORT;
    const address = hostPort(HTTP_HOST, port);
    if (!isLoopback(HTTP_HOST) && this.config.MR_TOKENS === undefined)
      this.logger.warn(
        { address },
        "anybody who reaches this port may run programs: set MR_TOKENS",
      );
    this.logger.info({ address }, "listening");
    return { address };
  }

  async close(): Promise<void> {
    this.isReady = false;
    await drained(this.server, this.config.MR_GRACE_MS);
    this.jobs.close();
    await this.coordinator.close();
    await this.store.close();
  }
}
