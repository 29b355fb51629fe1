/** PEM texts: whom a process trusts, and how it shows who it is, if it does. */
export interface Pem {
  ca: Buffer;
  cert?: Buffer;
  key?: Buffer;
}

/** Port: the certificates of this process. They may be others from one moment to the next. */
export interface Certificates {
  current(): Pem;
  /** Calls back whenever they are others. */
  onChange(changed: () => void): void;
}

/** The names that certificates are made out to: a part is known by what it is, wherever it runs. */
export const ROLE = {
  master: "mr-master",
  worker: "mr-worker",
  proxy: "mr-proxy",
} as const;
export type Role = keyof typeof ROLE;
