import assert from "node:assert/strict";
import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { describe, it } from "node:test";
import Koa from "koa";
import { Gone, presence } from "../../internal/http/presence.ts";
import { HttpError } from "../../internal/http/problem.ts";
import { SHARES, Shares } from "../../internal/http/shares.ts";
import { callerOf } from "../../internal/model/access.ts";

const app = new Koa();
const caller = (name: string) => callerOf({ name, places: ["*"] });
/** Of the connection to the leader. */
const STREAMS_AT_THE_LEADER = 2_048;

async function request() {
  const asked = new IncomingMessage(new Socket());
  const ctx = app.createContext(asked, new ServerResponse(asked));
  await presence()(ctx, async () => undefined);
  return ctx;
}

describe("shares", () => {
  it("leave something to others: of one client, and of all together", async () => {
    const shares = new Shares();
    const taken = [];
    const names = Array.from({ length: 30 }, (_, i) => `client-${i}`);
    for (const name of names)
      for (let i = 0; i <= SHARES.streams.named; i += 1) {
        const ctx = await request();
        const isFull = i === SHARES.streams.named || taken.length === SHARES.streams.all;
        const take = () => shares.take(ctx, caller(name), "streams");
        if (isFull) assert.throws(take, (error) => error instanceof HttpError);
        else take();
        if (!isFull) taken.push(ctx);
      }
    assert.equal(taken.length, SHARES.streams.all);
    assert.ok(taken.length < STREAMS_AT_THE_LEADER * 0.8);
    for (const ctx of taken) ctx.res.emit("close");
    for (let i = 0; i < SHARES.streams.named; i += 1)
      shares.take(await request(), caller("client-29"), "streams");
  });

  it("are not given to who has left", async () => {
    const shares = new Shares();
    for (let i = 0; i < 2 * SHARES.lists.named; i += 1) {
      const ctx = await request();
      ctx.res.emit("close");
      assert.throws(
        () => shares.take(ctx, caller("a"), "lists"),
        (error) => error instanceof Gone,
      );
    }
    shares.take(await request(), caller("a"), "lists");
  });
});
