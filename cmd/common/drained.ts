import type { Server } from "node:http";

const LOOK_MS = 50;

/**
 * Takes no new connections, and lets what is under way come to its end.
 * @param graceMs after which it is cut off.
 */
export async function drained(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  // A connection that is kept for a next request would keep the server.
  const looking = setInterval(() => server.closeIdleConnections(), LOOK_MS);
  const cut = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearInterval(looking);
  clearTimeout(cut);
}
