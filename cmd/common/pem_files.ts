import { readFileSync, statSync } from "node:fs";
import { createSecureContext } from "node:tls";
import type { Certificates, Pem } from "../../internal/model/certificates.ts";
import { messageOf } from "../../internal/model/errors.ts";
import type { Logger } from "../../internal/model/logger.ts";
import { ConfigError, type TlsConfig } from "./config.ts";

/** How often the files are looked at: a mounted Secret changes under a running process. */
const LOOK_MS = 1_000;

type Paths = Record<"ca", string> & Partial<Record<"cert" | "key", string>>;

/**
 * Certificates from files. What was read together is used together; a set that does not
 * fit, as in the middle of a change, is left until it does.
 */
export class PemFiles implements Certificates {
  private readonly paths: Paths;
  private readonly logger: Logger;
  private readonly listeners: (() => void)[] = [];
  private pem: Pem;
  private version: string;
  /** Of files that could not be used: said once. */
  private refused = "";

  /** @throws ConfigError naming the files that cannot be read, or do not fit together. */
  constructor(paths: Paths, logger: Logger) {
    this.paths = paths;
    this.logger = logger;
    try {
      this.version = this.look();
      this.pem = this.read();
    } catch (error) {
      const files = Object.values(paths).join(", ");
      throw new ConfigError(`the certificates in ${files} cannot be used: ${messageOf(error)}`);
    }
    setInterval(() => this.refresh(), LOOK_MS).unref();
  }

  current(): Pem {
    return this.pem;
  }

  onChange(changed: () => void): void {
    this.listeners.push(changed);
  }

  private look(): string {
    return Object.values(this.paths)
      .map((path) => {
        const { ino, size, mtimeMs } = statSync(path);
        return `${ino} ${size} ${mtimeMs}`;
      })
      .join(", ");
  }

  private read(): Pem {
    const { ca, cert, key } = this.paths;
    const pem: Pem = { ca: readFileSync(ca) };
    if (cert !== undefined) pem.cert = readFileSync(cert);
    if (key !== undefined) pem.key = readFileSync(key);
    createSecureContext(pem);
    return pem;
  }

  private refresh(): void {
    let version = "";
    try {
      version = this.look();
      if (version === this.version) return;
      this.pem = this.read();
    } catch (error) {
      if (version !== this.refused)
        this.logger.warn({ error: messageOf(error) }, "new certificates cannot be used yet");
      this.refused = version;
      return;
    }
    this.version = version;
    this.logger.info({ files: Object.values(this.paths) }, "certificates read again");
    for (const changed of this.listeners) changed();
  }
}

/** @returns undefined where none are set: without TLS. */
export function openCertificates(config: TlsConfig, logger: Logger): Certificates | undefined {
  const { MR_TLS_CA: ca, MR_TLS_CERT: cert, MR_TLS_KEY: key } = config;
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  if (ca === undefined || cert === undefined || key === undefined)
    throw new ConfigError("MR_TLS_CA, MR_TLS_CERT and MR_TLS_KEY belong together: set all or none");
  return new PemFiles({ ca, cert, key }, logger);
}
