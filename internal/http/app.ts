import Router from "@koa/router";
import Koa from "koa";
import type { JobApi, LeaderLocator } from "../model/job_api.ts";
import type { Logger } from "../model/logger.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { authenticated } from "./authentication.ts";
import { addClusterRoutes } from "./cluster_routes.ts";
import { addJobRoutes } from "./job_routes.ts";
import { jsonBodies } from "./json.ts";
import { addMetrics } from "./metrics.ts";
import { type OriginOptions, ownOrigin } from "./origin.ts";
import { presence } from "./presence.ts";
import { problems } from "./problem.ts";
import { type Route, Routes } from "./routes.ts";
import { Shares } from "./shares.ts";
import { addStorageRoutes } from "./storage_routes.ts";
import type { Authenticate } from "./token_file.ts";

export interface AppOptions {
  jobs: JobApi;
  locator: LeaderLocator;
  store: ObjectStore;
  logger: Logger;
  authenticate: Authenticate;
  origin: OriginOptions;
  /** Whether it takes new requests: not while it drains. */
  ready: () => boolean;
}

/** The proxy's whole HTTP surface. */
export function createApp(options: AppOptions): { app: Koa; routes: readonly Route[] } {
  const { jobs, locator, store, logger, authenticate } = options;
  const app = new Koa();
  const router = new Router();
  const routes = new Routes(router);
  const shares = new Shares();
  // Bodies that break off while they are streamed are the clients' affair.
  app.on("error", (error: Error) => logger.debug({ error: error.message }, "response broke off"));
  app.use(presence());
  app.use(jsonBodies());
  addMetrics(app, routes, jobs);
  addJobRoutes(routes, { jobs, store, shares });
  addStorageRoutes(routes, store, shares);
  addClusterRoutes(routes, { jobs, locator, ready: options.ready });
  app.use(problems(logger));
  app.use(ownOrigin(options.origin));
  app.use(authenticated(authenticate, (path) => routes.isOpen(path)));
  app.use(router.routes());
  app.use(router.allowedMethods({ throw: true }));
  return { app, routes: routes.all };
}
