import { parentPort } from "node:worker_threads";

/* A slot whose attempts take all the memory that there is, once the first has been asked for progress. */
const held: string[][] = [];
parentPort?.on("message", (message: { kind: string }) => {
  if (message.kind !== "stop") return;
  for (let i = 0; ; i += 1) held.push(Array.from({ length: 10_000 }, (_, n) => `${i} ${n}`));
});
