import { Readable } from "node:stream";
import type Router from "@koa/router";
import type { Context } from "koa";
import { MrError } from "../model/errors.ts";
import { blobNameFault, containerNameFault, prefixFault } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { callerFor, mustUse } from "./authentication.ts";
import { HttpError } from "./problem.ts";

/** Data and scripts in and out, for clients that have no access to the storage itself. */
export function addStorageRoutes(router: Router, store: ObjectStore): void {
  router.get("/storage", async (ctx) => {
    const containers = await store.containers();
    ctx.body = { containers: containers.filter((name) => callerFor(ctx).mayUse(name)) };
  });
  router.get("/storage/:container", async (ctx) => {
    const container = containerOf(ctx);
    const prefix = String(ctx.query.prefix ?? "");
    const fault = prefixFault(prefix);
    if (fault !== undefined) throw new MrError("invalid", `prefix: ${fault}`);
    if (!(await store.containerExists(container)))
      throw new MrError("not_found", `there is no container ${container}`);
    ctx.type = "application/json";
    ctx.body = Readable.from(listing(store, container, prefix));
  });
  router.put("/storage/:container", async (ctx) => {
    const container = containerOf(ctx);
    await store.ensureContainer(container);
    ctx.body = { container };
  });
  router.put("/storage/:container/{*name}", async (ctx) => {
    const [container, name] = [containerOf(ctx), nameOf(ctx)];
    await store.ensureContainer(container);
    ctx.body = await store.put(container, name, wholeBody(ctx));
    ctx.status = 201;
  });
  router.get("/storage/:container/{*name}", async (ctx) => {
    const [container, name] = [containerOf(ctx), nameOf(ctx)];
    const info = await store.head(container, name);
    if (info === undefined) throw new MrError("not_found", `there is no ${container}/${name}`);
    const wanted = ctx.get("If-Match");
    if (wanted !== "" && wanted !== "*" && wanted !== `"${info.etag}"`)
      throw new HttpError(412, `${container}/${name} is another version now`);
    const range = rangeOf(ctx.get("Range"), info.size);
    if (range === "unsatisfiable") {
      ctx.set("Content-Range", `bytes */${info.size}`);
      throw new HttpError(416, `${container}/${name} has ${info.size} bytes`);
    }
    const { start, length } = range ?? { start: 0, length: info.size };
    if (range !== undefined) {
      ctx.status = 206;
      ctx.set("Content-Range", `bytes ${start}-${start + length - 1}/${info.size}`);
    }
    ctx.type = "application/octet-stream";
    ctx.set("ETag", `"${info.etag}"`);
    ctx.set("Accept-Ranges", "bytes");
    ctx.body = Readable.from(store.read(container, name, { start, length, etag: info.etag }));
    ctx.length = length;
  });
  router.delete("/storage/:container/{*name}", async (ctx) => {
    await store.delete(containerOf(ctx), nameOf(ctx));
    ctx.status = 204;
  });
}

function params(ctx: Context): Record<string, string> {
  return (ctx as { params?: Record<string, string> }).params ?? {};
}

function containerOf(ctx: Context): string {
  const { container = "" } = params(ctx);
  const fault = containerNameFault(container);
  if (fault !== undefined) throw new MrError("invalid", `container: ${fault}`);
  mustUse(ctx, container);
  return container;
}

function nameOf(ctx: Context): string {
  const { name = "" } = params(ctx);
  const fault = blobNameFault(name);
  if (fault !== undefined) throw new MrError("invalid", `name: ${fault}`);
  return name;
}

/** One range of bytes; any other form is as if there were none, as RFC 9110 allows. */
function rangeOf(header: string, size: number) {
  const match = /^bytes=(\d{1,15})-(\d{1,15})?$/.exec(header.trim());
  if (match === null) return undefined;
  const start = Number(match[1]);
  const last = Math.min(size - 1, match[2] === undefined ? size - 1 : Number(match[2]));
  return start > last ? ("unsatisfiable" as const) : { start, length: last - start + 1 };
}

/** The body to its last byte: one that breaks off must not become an object. */
async function* wholeBody(ctx: Context): AsyncIterable<Uint8Array> {
  const announced = ctx.req.headers["content-length"];
  let size = 0;
  for await (const chunk of ctx.req as AsyncIterable<Buffer>) {
    size += chunk.length;
    yield chunk;
  }
  if (!ctx.req.complete || (announced !== undefined && size !== Number(announced)))
    throw new HttpError(400, "the body ended early");
}

/** The list may be long: it is written as it is read. */
async function* listing(
  store: ObjectStore,
  container: string,
  prefix: string,
): AsyncIterable<string> {
  yield '{"objects":[';
  let separator = "";
  for await (const info of store.list(container, prefix)) {
    yield `${separator}${JSON.stringify(info)}`;
    separator = ",\n";
  }
  yield "]}\n";
}
