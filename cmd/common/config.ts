import { availableParallelism, hostname, networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { DEFAULT_SCHEDULER_CONFIG } from "../../internal/scheduler/state.ts";
import { learnSecrets } from "./redaction.ts";

/** A bad setting: its message is for the operator, without a stack. */
export class ConfigError extends Error {}

const port = z.coerce.number().int().min(0).max(65_535);
const ms = z.coerce.number().int().min(1);
const text = z.string().min(1);
const level = z.enum(["trace", "debug", "info", "warn", "error", "silent"]);

/** IPv4 where there is both. What begins with 169.254, or has a scope, is not for other machines. */
function ownAddress(): string {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const open = all.filter(
    (each) => !each.internal && !each.address.startsWith("169.254.") && !each.scopeid,
  );
  const own = open.find(({ family }) => family === "IPv4") ?? open[0];
  if (own === undefined) throw new ConfigError("POD_IP: auto finds no network but loopback");
  return own.address;
}

const common = {
  MR_LOG_LEVEL: level.default("info"),
};

const coordinator = {
  ETCD_ADDRESS: text.optional(),
  ETCD_ROOT_PASSWORD: text.optional(),
  /** Whose password that is. */
  MR_ETCD_USER: text.default("root"),
  /** PEM files for https; a certificate of our own only where etcd asks for one. */
  MR_ETCD_CA: text.optional(),
  MR_ETCD_CERT: text.optional(),
  MR_ETCD_KEY: text.optional(),
  MR_ETCD_PREFIX: text.default("mr/"),
  /** Embedded default: the file that the processes of one machine share. */
  MR_SQLITE_FILE: text.optional(),
  MR_LEADER_TTL_MS: ms.default(3_000),
};

const storage = {
  BLOB_CONNECTION: text.optional(),
  AZURE_STORAGE_CONNECTION_STRING: text.optional(),
  /** Instead of a key: the account's name, to which we are known by what we are. */
  AZURE_STORAGE_ACCOUNT: text.optional(),
  /** How long a request to a failing Blob storage is tried again; default: by role. */
  MR_STORAGE_PATIENCE_MS: ms.optional(),
  /** Embedded default: the folder whose sub-folders are the containers. */
  MR_STORE_DIR: text.optional(),
};

/** PEM files for the connections between master, worker and proxy; read again when they change. */
const tls = {
  MR_TLS_CA: text.optional(),
  MR_TLS_CERT: text.optional(),
  MR_TLS_KEY: text.optional(),
};

const masterSchema = z.object({
  ...common,
  ...tls,
  ...coordinator,
  ...storage,
  /** `auto`: the first address of this machine, or container, that others can reach. */
  POD_IP: text.default("127.0.0.1").transform((ip) => (ip === "auto" ? ownAddress() : ip)),
  RPC_PORT: port.default(50_051),
  /** HOST:PORT under which others reach this master; default POD_IP and the port. */
  RPC_ADDRESS: text.optional(),
  MR_HEARTBEAT_MS: ms.default(DEFAULT_SCHEDULER_CONFIG.heartbeatMs),
  MR_LEASE_MS: ms.default(DEFAULT_SCHEDULER_CONFIG.leaseMs),
  MR_RECONNECT_MS: ms.default(DEFAULT_SCHEDULER_CONFIG.reconnectMs),
  /** Whether a job may say `network`. */
  MR_NETWORK_JOBS: z.enum(["allow", "refuse"]).default("refuse"),
});

const workerSchema = z.object({
  ...common,
  ...tls,
  ...storage,
  /** Longer than an outage that no attempt should be lost to. */
  MR_STORAGE_PATIENCE_MS: ms.default(180_000),
  /** The masters, HOST:PORT, comma-separated; a name may stand for all of them. */
  RPC_ADDRESS: text.default("127.0.0.1:50051"),
  MR_WORKER_NAME: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9.-]{0,99}$/)
    .default(hostname()),
  MR_SLOTS: z.coerce.number().int().min(1).max(1_000).default(availableParallelism()),
  /** Reduce tasks that a slot takes at a time: they wait for their pipes more than they work. */
  MR_REDUCES_PER_SLOT: z.coerce.number().int().min(1).max(100).default(3),
  MR_SORT_MB: z.coerce.number().int().min(1).max(2_047).default(96),
  /** Default: as it fits the worker's memory, 256 at most. */
  MR_LINE_MB: z.coerce.number().int().min(1).max(1_024).optional(),
  MR_SCRATCH_DIR: text.default(join(tmpdir(), "mr-worker")),
  /** Where it shows probes that it lives; undefined: nowhere. */
  MR_HEALTH_DIR: text.optional(),
  /** 0: running attempts are handed back at once. */
  MR_GRACE_MS: z.coerce.number().int().min(0).default(0),
  /** Limits of one run of a script, with all it starts; 0: none. */
  MR_SCRIPT_MEMORY_MB: z.coerce.number().int().min(0).optional(),
  MR_SCRIPT_PROCESSES: z.coerce.number().int().min(0).default(256),
  MR_SCRIPT_OUTPUT_MB: z.coerce.number().int().min(0).default(102_400),
  MR_SCRIPT_CPU_S: z.coerce.number().int().min(0).default(0),
  MR_SCRIPT_FILE_MB: z.coerce.number().int().min(0).default(0),
  MR_SCRIPT_OPEN_FILES: z.coerce.number().int().min(0).default(4_096),
  /** Limits of what a job ships: of one file, and of all that is laid out for one script; 0: none. */
  MR_FILE_MB: z.coerce.number().int().min(0).default(1_024),
  MR_FILES_MB: z.coerce.number().int().min(0).default(2_048),
  /** Of the runner that starts scripts, a path or @NAME; undefined: a child of this process. */
  MR_RUNNER: z
    .string()
    .regex(/^[@/]./)
    .optional(),
  /** Where a runner with other mounts can read what it is to lay out; undefined: in MR_SCRATCH_DIR. */
  MR_LAYOUT_DIR: text.optional(),
  /** Where pip finds the packages of a requirements.txt; scripts can read it. */
  MR_PIP_INDEX_URL: z.url().optional(),
});

const proxySchema = z.object({
  ...common,
  ...tls,
  ...coordinator,
  ...storage,
  HTTP_HOST: text.default("127.0.0.1"),
  HTTP_PORT: port.default(8_080),
  /** A file of tokens; without, whoever reaches the port may do all. */
  MR_TOKENS: text.optional(),
  /** Names by which clients know it, comma-separated, beside addresses and localhost. */
  MR_HTTP_HOSTS: z
    .string()
    .regex(/^[\w.-]+(,[\w.-]+)*$/, "names without ports are expected, comma-separated")
    .transform((list) => list.split(","))
    .default([]),
  /** How long uploads, downloads and streams may still take when it is told to stop. */
  MR_GRACE_MS: z.coerce.number().int().min(0).default(30_000),
  /** A request waits this long for there to be a leader that answers. */
  MR_PATIENCE_MS: ms.default(30_000),
});

export type MasterConfig = z.infer<typeof masterSchema>;
export type WorkerConfig = z.infer<typeof workerSchema>;
export type ProxyConfig = z.infer<typeof proxySchema>;
export type CoordinatorConfig = Pick<MasterConfig, keyof typeof coordinator>;
export type TlsConfig = Pick<MasterConfig, keyof typeof tls>;
export type StorageConfig = Pick<MasterConfig, keyof typeof storage>;

type Env = Record<string, string | undefined>;

export const masterConfig = (env: Env): MasterConfig => parse(masterSchema, env);
export const workerConfig = (env: Env): WorkerConfig => parse(workerSchema, env);
export const proxyConfig = (env: Env): ProxyConfig => parse(proxySchema, env);

function parse<T>(schema: z.ZodType<T>, env: Env): T {
  // An empty variable is one that was not set.
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ""));
  learnSecrets(given);
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map((issue) => `  ${issue.path.join(".")}: ${issue.message}`);
  throw new ConfigError(`bad environment:\n${faults.join("\n")}`);
}
