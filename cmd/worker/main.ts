import "../common/node_version.ts";
import { workerConfig } from "../common/config.ts";
import { runProcess } from "../common/run_process.ts";
import { WorkerProcess } from "./worker_process.ts";

await runProcess(() => new WorkerProcess(workerConfig(process.env)));
