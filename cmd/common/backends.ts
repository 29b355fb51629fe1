import type { Certificates } from "../../internal/model/certificates.ts";
import type { Coordinator } from "../../internal/model/coordinator.ts";
import type { Logger } from "../../internal/model/logger.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { ConfigError, type CoordinatorConfig, type StorageConfig } from "./config.ts";
import { PemFiles } from "./pem_files.ts";

/*
 * The one place that knows which backend stands behind a port. Only that one is loaded: in a
 * slot's thread a library that is not used would be tens of megabytes.
 */

export async function openCoordinator(
  config: CoordinatorConfig,
  logger: Logger,
): Promise<Coordinator> {
  if (config.ETCD_ADDRESS !== undefined) {
    const { EtcdCoordinator } = await import(
      "../../internal/coordination/etcd/etcd_coordinator.ts"
    );
    return new EtcdCoordinator({
      address: config.ETCD_ADDRESS,
      user: config.MR_ETCD_USER,
      password: config.ETCD_ROOT_PASSWORD,
      certificates: etcdCertificates(config, logger),
      prefix: config.MR_ETCD_PREFIX,
      ttlMs: config.MR_LEADER_TTL_MS,
      logger,
    });
  }
  if (config.MR_SQLITE_FILE !== undefined) {
    const { SqliteCoordinator } = await import(
      "../../internal/coordination/sqlite/sqlite_coordinator.ts"
    );
    return new SqliteCoordinator({ file: config.MR_SQLITE_FILE, ttlMs: config.MR_LEADER_TTL_MS });
  }
  throw new ConfigError("set ETCD_ADDRESS (or MR_SQLITE_FILE, for one machine)");
}

function etcdCertificates(config: CoordinatorConfig, logger: Logger): Certificates | undefined {
  const { MR_ETCD_CA: ca, MR_ETCD_CERT: cert, MR_ETCD_KEY: key } = config;
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  if (ca === undefined) throw new ConfigError("MR_ETCD_CERT and MR_ETCD_KEY need an MR_ETCD_CA");
  if ((cert === undefined) !== (key === undefined))
    throw new ConfigError("MR_ETCD_CERT and MR_ETCD_KEY belong together: set both or none");
  const own = cert === undefined || key === undefined ? {} : { cert, key };
  return new PemFiles({ ca, ...own }, logger);
}

/** @param blocking for a thread that keeps nobody waiting. */
export async function openStore(config: StorageConfig, blocking = false): Promise<ObjectStore> {
  const connection = config.BLOB_CONNECTION ?? config.AZURE_STORAGE_CONNECTION_STRING;
  if (connection !== undefined) {
    const { AzureStore } = await import("../../internal/storage/azure/azure_store.ts");
    return new AzureStore(connection, { patienceMs: config.MR_STORAGE_PATIENCE_MS });
  }
  if (config.AZURE_STORAGE_ACCOUNT !== undefined) {
    const { AzureStore } = await import("../../internal/storage/azure/azure_store.ts");
    const { identityFor } = await import("../../internal/storage/azure/identity.ts");
    const identity = identityFor(config.AZURE_STORAGE_ACCOUNT);
    return new AzureStore(identity, { patienceMs: config.MR_STORAGE_PATIENCE_MS });
  }
  if (config.MR_STORE_DIR !== undefined) {
    const { LocalStore } = await import("../../internal/storage/local/local_store.ts");
    return new LocalStore(config.MR_STORE_DIR, { blocking });
  }
  throw new ConfigError(
    "set AZURE_STORAGE_ACCOUNT, BLOB_CONNECTION or AZURE_STORAGE_CONNECTION_STRING (or MR_STORE_DIR, for one machine)",
  );
}
