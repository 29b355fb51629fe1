/**
 * Named places where a test may let a process die, stop, wait or fail, so that a
 * crash is hit exactly and not by luck. In production nothing is armed and a call
 * is a comparison with undefined; what arms them lives with the tests.
 */
export type FailurePoint =
  | "master.commit.before"
  | "master.commit.after"
  | "master.publish.before-part"
  | "master.publish.after-part"
  | "master.publish.before-marker"
  | "master.publish.after-marker"
  | "master.sweep.before"
  | "master.takeover.read"
  | "worker.spill.before-write"
  | "worker.map.before-upload"
  | "worker.map.before-publish"
  | "worker.map.after-publish"
  | "worker.reduce.before-read"
  | "worker.reduce.before-seal"
  | "worker.reduce.after-seal";

export type FailureHook = (at: FailurePoint) => Promise<void> | undefined;

let hook: FailureHook | undefined;

export function failurePoint(at: FailurePoint): Promise<void> | undefined {
  return hook?.(at);
}

/** For tests only. */
export function armFailurePoints(armed: FailureHook): void {
  hook = armed;
}
