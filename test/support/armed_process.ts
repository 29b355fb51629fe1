/**
 * Preloaded into a process under test: `--import armed_process.ts?dir=FOLDER`. Files in
 * the folder are orders, so that they reach running processes, threads of theirs,
 * and those started later:
 *
 *   POINT        what happens to whoever reaches that failure point first: `kill`,
 *                `stop`, `wait` (until there is a file POINT.go) or `fail CODE`;
 *                `@N` after it lets it pass N - 1 times before
 *   clock        milliseconds by which the wall clock is off
 *   goaway       while it is there, HTTP/2 servers send GOAWAY on every connection
 *
 * Whoever obeys an order takes its file away and leaves POINT.hit with its pid.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import http2, { type ServerHttp2Session } from "node:http2";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { armFailurePoints, type FailurePoint } from "../../internal/model/failure_point.ts";

const POLL_MS = 20;
const dir = new URL(import.meta.url).searchParams.get("dir") ?? "";
const passed = new Map<string, number>();

armFailurePoints((at) => {
  const order = join(dir, at);
  if (!existsSync(order)) return undefined;
  return obey(at, order);
});

function obey(at: FailurePoint, order: string): Promise<void> | undefined {
  let text: string;
  try {
    text = readFileSync(order, "utf8");
    const [, nth = "1"] = text.split("@").map((part) => part.trim());
    const times = (passed.get(at) ?? 0) + 1;
    passed.set(at, times);
    if (times < Number(nth)) return undefined;
    renameSync(order, `${order}.taken`);
  } catch {
    return undefined; // Another one was quicker.
  }
  writeFileSync(`${order}.hit`, String(process.pid));
  const [what = "", code = ""] = (text.split("@")[0] ?? "").trim().split(" ");
  if (what === "kill" || what === "stop") process.kill(process.pid, `SIG${what.toUpperCase()}`);
  if (what === "wait") return waitFor(`${order}.go`);
  if (what === "fail")
    return Promise.reject(Object.assign(new Error(`${code}: planted by a test`), { code }));
  return undefined;
}

async function waitFor(path: string): Promise<void> {
  while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
}

/** Date, as a machine would tell it whose clock was set. */
const RealDate = Date;
let clockMs = 0;
class SetDate extends RealDate {
  constructor(...args: []) {
    if (args.length === 0) super(RealDate.now() + clockMs);
    else super(...args);
  }

  static override now(): number {
    return RealDate.now() + clockMs;
  }
}
globalThis.Date = SetDate as DateConstructor;

const sessions = new Set<ServerHttp2Session>();
const createServer = http2.createServer;
http2.createServer = ((...args: Parameters<typeof createServer>) => {
  const server = createServer(...args);
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  return server;
}) as typeof createServer;
syncBuiltinESMExports();

setInterval(() => {
  const clock = join(dir, "clock");
  clockMs = existsSync(clock) ? Number(readFileSync(clock, "utf8")) || 0 : 0;
  if (!existsSync(join(dir, "goaway"))) return;
  for (const session of sessions) if (!session.destroyed) session.goaway();
}, POLL_MS).unref();
