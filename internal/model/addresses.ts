/*
 * Hosts and ports. In HOST:PORT an IPv6 address stands in brackets, as in a URL: [fd00::12]:50051.
 */

/** @param host a name, or an address of either family, with or without brackets. */
export function hostPort(host: string, port: number | string): string {
  return isIpv6(host) && !host.startsWith("[") ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * The two parts of HOST:PORT, the host without brackets, as it is looked up and listened on;
 * undefined where it is none.
 */
export function splitHostPort(address: string): { host: string; port: string } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^[\]]+)):(\d+)$/.exec(address) ?? [];
  const host = bracketed ?? plain;
  return host === undefined || port === undefined ? undefined : { host, port };
}

/** Nothing else that is a host has a colon in it. */
export function isIpv6(host: string): boolean {
  return host.includes(":");
}

/** Whether nobody beyond this machine can reach a port of this host. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^(::ffff:)?127\./.test(host);
}

/**
 * What Node is told to listen on for a host. For "::" it is nothing: Node then takes both families
 * where the kernel has both, and IPv4 where it has no other.
 */
export function listenHost(host: string): string {
  return host === "::" ? "" : host;
}
