import "../common/node_version.ts";
import { proxyConfig } from "../common/config.ts";
import { runProcess } from "../common/run_process.ts";
import { ProxyProcess } from "./proxy_process.ts";

await runProcess("proxy", () => ProxyProcess.open(proxyConfig(process.env)));
