import type { Coordinator } from "../../internal/model/coordinator.ts";
import type { ObjectStore } from "../../internal/model/object_store.ts";
import { ConfigError, type CoordinatorConfig, type StorageConfig } from "./config.ts";

/*
 * The one place that knows which backend stands behind a port. Only that one is loaded: in a
 * slot's thread a library that is not used would be tens of megabytes.
 */

export async function openCoordinator(config: CoordinatorConfig): Promise<Coordinator> {
  if (config.ETCD_ADDRESS !== undefined) {
    const { EtcdCoordinator } = await import(
      "../../internal/coordination/etcd/etcd_coordinator.ts"
    );
    return new EtcdCoordinator({
      address: config.ETCD_ADDRESS,
      password: config.ETCD_ROOT_PASSWORD,
      prefix: config.MR_ETCD_PREFIX,
      ttlMs: config.MR_LEADER_TTL_MS,
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

/** @param blocking for a thread that keeps nobody waiting. */
export async function openStore(config: StorageConfig, blocking = false): Promise<ObjectStore> {
  const connection = config.BLOB_CONNECTION ?? config.AZURE_STORAGE_CONNECTION_STRING;
  if (connection !== undefined) {
    const { AzureStore } = await import("../../internal/storage/azure/azure_store.ts");
    return new AzureStore(connection, { patienceMs: config.MR_STORAGE_PATIENCE_MS });
  }
  if (config.MR_STORE_DIR !== undefined) {
    const { LocalStore } = await import("../../internal/storage/local/local_store.ts");
    return new LocalStore(config.MR_STORE_DIR, { blocking });
  }
  throw new ConfigError(
    "set BLOB_CONNECTION or AZURE_STORAGE_CONNECTION_STRING (or MR_STORE_DIR, for one machine)",
  );
}
