import { parentPort, workerData } from "node:worker_threads";
import { exportedNames } from "./module_exports.ts";

/* A thread that lexes one text, and can be ended when that takes too long. */
parentPort?.postMessage(exportedNames(workerData as string));
