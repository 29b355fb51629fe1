import "../common/node_version.ts";
import { hiddenEnvironment } from "../common/hidden_environment.ts";

// First of all: the rest is loaded in the second life only.
const env = hiddenEnvironment();
const { workerConfig } = await import("../common/config.ts");
const { runProcess } = await import("../common/run_process.ts");
const { WorkerProcess } = await import("./worker_process.ts");

const open = () => WorkerProcess.open(workerConfig(env));
await runProcess("worker", open, env.MR_PARENT_PID || undefined);
