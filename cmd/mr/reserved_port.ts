import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";

/**
 * Below what systems give to outgoing connections (Linux from 32768, others from
 * 49152): there, a port whose server is down may be taken by a connection, even
 * by one made to that very port, which then talks to itself. And below the ports
 * that Kubernetes gives to services on its nodes (from 30000).
 */
const FIRST = 20_000;
const LAST = 29_999;
const TRIES = 100;

/** A TCP port of the loopback interface, kept until it is disposed of or this process ends. */
export interface ReservedPort extends Disposable {
  number: number;
}

/**
 * Keeps a port for a server that will listen on it, and again after each restart.
 * The UDP port of the same number tells others who reserve that it is taken; the
 * system gives that back when a process ends, however it ends.
 */
export async function reservePort(): Promise<ReservedPort> {
  for (let tries = 1; tries <= TRIES; tries += 1) {
    const number = randomInt(FIRST, LAST + 1);
    const reservation = await reserve(number);
    if (reservation !== undefined) return reservation;
  }
  throw new Error(`no free port from ${FIRST} to ${LAST} of 127.0.0.1 in ${TRIES} tries`);
}

async function reserve(number: number): Promise<ReservedPort | undefined> {
  const mark = createSocket("udp4");
  const server = createServer();
  try {
    mark.bind({ port: number, address: "127.0.0.1", exclusive: true });
    await once(mark, "listening");
    server.listen(number, "127.0.0.1");
    await once(server, "listening");
  } catch {
    mark.close();
    return undefined;
  }
  server.close();
  await once(server, "close");
  mark.unref();
  return { number, [Symbol.dispose]: () => mark.close() };
}
