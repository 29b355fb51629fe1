import "../common/node_version.ts";
import { masterConfig } from "../common/config.ts";
import { runProcess } from "../common/run_process.ts";
import { MasterProcess } from "./master_process.ts";

await runProcess("master", () => MasterProcess.open(masterConfig(process.env)));
