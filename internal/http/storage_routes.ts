import { Readable } from "node:stream";
import type { Context } from "koa";
import { MrError } from "../model/errors.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { KNOWN, ofBlob, ofContainer, withCaller } from "./authorisation.ts";
import { jsonText } from "./json.ts";
import { HttpError } from "./problem.ts";
import type { Routes } from "./routes.ts";
import type { Shares } from "./shares.ts";

/** Data and scripts in and out, for clients that have no access to the storage itself. */
export function addStorageRoutes(routes: Routes, store: ObjectStore, shares: Shares): void {
  routes.add("GET", "/storage", KNOWN, async (ctx, caller) => {
    const containers = await store.containers();
    ctx.body = { containers: containers.filter((name) => caller.knows(name)) };
  });
  const LISTED = withCaller(ofContainer("read"));
  routes.add("GET", "/storage/:container", LISTED, async (ctx, [{ container, prefix }, caller]) => {
    shares.take(ctx, caller, "lists");
    if (!(await store.containerExists(container)))
      throw new MrError("not_found", `there is no container ${container}`);
    ctx.type = "application/json";
    ctx.body = Readable.from(listing(store, container, prefix));
  });
  routes.add("PUT", "/storage/:container", ofContainer("write"), async (ctx, { container }) => {
    await store.ensureContainer(container);
    ctx.body = { container };
  });
  const BLOB = "/storage/:container/{*name}";
  routes.add("PUT", BLOB, withCaller(ofBlob("write")), async (ctx, [blob, caller]) => {
    const { container, name } = blob;
    shares.take(ctx, caller, "transfers");
    await store.ensureContainer(container);
    ctx.body = await store.put(container, name, wholeBody(ctx));
    ctx.status = 201;
  });
  routes.add("GET", BLOB, withCaller(ofBlob("read")), async (ctx, [blob, caller]) => {
    const { container, name } = blob;
    shares.take(ctx, caller, "transfers");
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
  routes.add("DELETE", BLOB, ofBlob("write"), async (ctx, { container, name }) => {
    await store.delete(container, name);
    ctx.status = 204;
  });
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
    yield `${separator}${jsonText(info)}`;
    separator = ",\n";
  }
  yield "]}\n";
}
