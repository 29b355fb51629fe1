/** Loaded into a master by --import: tells its parent how much memory it needs, garbage left out. */
process.on("message", (message) => {
  if (message !== "memory") return;
  globalThis.gc?.();
  process.send?.({ kind: "memory", ...process.memoryUsage() });
});
// The listener alone must not keep a master from ending.
process.channel?.unref();
