import "../common/node_version.ts";
import { workerConfig } from "../common/config.ts";
import { hiddenEnvironment } from "../common/hidden_environment.ts";
import { runProcess } from "../common/run_process.ts";
import { WorkerProcess } from "./worker_process.ts";

const env = hiddenEnvironment();
await runProcess(() => new WorkerProcess(workerConfig(env)), env.MR_PARENT_PID);
