import Router from "@koa/router";
import Koa from "koa";
import type { JobApi, LeaderLocator } from "../model/job_api.ts";
import type { Logger } from "../model/logger.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { authenticated } from "./authentication.ts";
import { addClusterRoutes, addMetrics } from "./cluster_routes.ts";
import { addJobRoutes } from "./job_routes.ts";
import { problems } from "./problem.ts";
import { addStorageRoutes } from "./storage_routes.ts";
import type { Authenticate } from "./token_file.ts";

export interface AppOptions {
  jobs: JobApi;
  locator: LeaderLocator;
  store: ObjectStore;
  logger: Logger;
  authenticate: Authenticate;
}

/** The proxy's whole HTTP surface. */
export function createApp({ jobs, locator, store, logger, authenticate }: AppOptions): Koa {
  const app = new Koa();
  const router = new Router();
  // Bodies that break off while they are streamed are the clients' affair.
  app.on("error", (error: Error) => logger.debug({ error: error.message }, "response broke off"));
  addMetrics(app, router, jobs);
  app.use(problems(logger));
  app.use(authenticated(authenticate));
  addJobRoutes(router, { jobs, store });
  addStorageRoutes(router, store);
  addClusterRoutes(router, { jobs, locator });
  app.use(router.routes());
  app.use(router.allowedMethods({ throw: true }));
  return app;
}
