import { once } from "node:events";
import { PassThrough } from "node:stream";
import type { Context } from "koa";
import { MrError } from "../model/errors.ts";
import type { FollowedJobs, Line } from "./followed_jobs.ts";
import { overOf } from "./presence.ts";

/** A stream of progress says something at least this often, in milliseconds. */
const KEEPALIVE_MS = 15_000;

/** How a stream of progress is written. */
export interface StreamForm {
  type: string;
  frame(json: string): string;
}

export const LINES: StreamForm = {
  type: "application/x-ndjson",
  frame: (json) => `${json}\n`,
};

export const EVENTS: StreamForm = {
  type: "text/event-stream",
  frame: (json) => `data: ${json}\n\n`,
};

/**
 * Streams the job at every change until its final state. The job goes on if the
 * client leaves. The first line is awaited before the headers go out, so that a
 * failure is still a status.
 */
export async function streamJob(
  ctx: Context,
  followed: FollowedJobs,
  id: string,
  { type, frame }: StreamForm,
): Promise<void> {
  const over = overOf(ctx);
  const lines = followed.follow(id, over);
  const first = await lines.next();
  if (first.done === true) throw new MrError("unavailable", "the job cannot be watched just now");
  const body = new PassThrough();
  ctx.status = 200;
  ctx.type = type;
  ctx.set("X-Accel-Buffering", "no");
  ctx.body = body;
  ctx.flushHeaders();
  void pumpLines(body, first.value, lines, frame, over);
}

async function pumpLines(
  body: PassThrough,
  first: Line,
  lines: AsyncGenerator<Line, void, undefined>,
  frame: StreamForm["frame"],
  over: AbortSignal,
): Promise<void> {
  let last = first;
  const say = async () => {
    // A client that does not read must not fill our memory: it gets the newest when it does.
    while (body.writableNeedDrain && !over.aborted)
      await once(body, "drain", { signal: over }).catch(() => undefined);
    if (!body.writableEnded) body.write(frame(last.json));
  };
  const timer = setInterval(() => body.writableNeedDrain || void say(), KEEPALIVE_MS);
  try {
    await say();
    while (!last.isLast && !over.aborted) {
      const next = await lines.next();
      if (next.done === true) break;
      last = next.value;
      await say();
      timer.refresh();
    }
  } catch {
    // Nobody could be asked for long: the client sees a stream without a final state, and asks again.
  } finally {
    clearInterval(timer);
    body.end();
    await lines.return();
  }
}
