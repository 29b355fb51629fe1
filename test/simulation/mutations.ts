import type { RecordWrite } from "../../internal/model/coordinator.ts";
import type { Receipt } from "../../internal/model/task.ts";
import type { Command, Event, SweepScope } from "../../internal/scheduler/events.ts";
import type { State } from "../../internal/scheduler/state.ts";
import type { AgentCommand, AgentEvent } from "../../internal/worker/agent.ts";
import type { WorkerModel } from "./worker_model.ts";

/**
 * A deliberate mistake, put around the real code, to see that it would be noticed:
 * each hook stands between a core and its shell and may change what passes.
 */
export interface Mutation {
  event?: (event: Event) => Event;
  commands?: (commands: Command[], event: Event, state: State) => Command[];
  commit?: (writes: RecordWrite[]) => RecordWrite[];
  recovered?: (records: Recorded[]) => Recorded[];
  agent?: (commands: AgentCommand[], event: AgentEvent, worker: WorkerModel) => AgentCommand[];
  /** A rule that the shell breaks. */
  shell?:
    | "no-fence"
    | "acknowledge-first"
    | "late-commits-land"
    | "unknown-is-done"
    | "epoch-reused"
    | "endless-term"
    | "term-from-reply";
}

type Recorded = { key: string; value: string };

interface Mistake {
  /** Anew for each run. */
  make: () => Mutation;
  /** The observer that has to notice, for the right reason. */
  caughtAs: RegExp;
}

const isKind = (kind: string) => (name: string) => name.split("/")[2] === kind;
const isDone = isKind("done");
const isLost = isKind("lost");
const isStale = isKind("stale");

export const MISTAKES: Record<string, Mistake> = {
  "commits are not fenced": {
    make: () => ({ shell: "no-fence" }),
    caughtAs: /^I[1236]/,
  },
  "effects do not wait for their commit": {
    make: () => ({ shell: "acknowledge-first" }),
    caughtAs: /^I7/,
  },
  "a commit of unknown outcome counts as done": {
    make: () => ({ shell: "unknown-is-done" }),
    caughtAs: /^I[247]/,
  },
  "a commit that was given up lands late": {
    make: () => ({ shell: "late-commits-land" }),
    caughtAs: /^never comes to rest: there is the record|^I[12]/,
  },
  "two leaders have one epoch": {
    make: () => ({ shell: "epoch-reused" }),
    caughtAs: /^I3: .* was granted twice/,
  },
  "a leader does not look at its clock": {
    make: () => ({ shell: "endless-term" }),
    caughtAs: /^C4/,
  },
  "a term is counted from the reply": {
    make: () => ({ shell: "term-from-reply" }),
    caughtAs: /^C4/,
  },
  "winners are not recorded": {
    make: () => ({
      commit: (writes) => writes.filter(({ key, value }) => !isDone(key) || value === undefined),
    }),
    caughtAs: /^I[24]/,
  },
  "a loss is not recorded": {
    make: () => ({ commit: (writes) => writes.filter(({ key }) => !isLost(key)) }),
    caughtAs: /^I1: .*m-\d+ was won/,
  },
  "results are reset unrecorded": {
    make: () => ({ commit: (writes) => writes.filter(({ key }) => !isStale(key)) }),
    caughtAs: /^I1: .*r-\d+ was won/,
  },
  "a loss is not read back": {
    make: () => ({ recovered: (records) => records.filter(({ key }) => !isLost(key)) }),
    caughtAs: /^I9|^never comes to rest: there is the record .*\/lost\//,
  },
  "stale reduce attempts may win": {
    make: () => ({
      recovered: (records) => records.filter(({ key }) => !isStale(key)),
      commands: (commands, _event, state) => {
        for (const job of state.jobs.values()) job.stale = undefined;
        return commands;
      },
    }),
    caughtAs: /^I9/,
  },
  "ranges are cut, and not recorded": {
    make: () => ({ commit: (writes) => writes.filter(({ key }) => !isKind("cuts")(key)) }),
    caughtAs: /^I10/,
  },
  "ranges are cut anew by each leader": {
    make: () => ({ recovered: (records) => records.filter(({ key }) => !isKind("cuts")(key)) }),
    caughtAs: /^I10: .* was cut again/,
  },
  "nobody listens to what is lost": {
    make: () => ({
      event: (event) =>
        event.kind === "worker-message" && event.message.kind === "failed"
          ? { ...event, message: { ...event.message, lostOutputs: [] } }
          : event,
    }),
    caughtAs: /never comes to rest: .* has not ended/,
  },
  "leases never lapse": {
    make: () => ({
      commands: (commands, _event, state) => {
        for (const attempt of state.attempts.values()) attempt.deadlineMs = Number.MAX_VALUE;
        return commands;
      },
    }),
    caughtAs: /never comes to rest: .* has not ended/,
  },
  "the marker comes before the parts": {
    make: () => ({
      commands: (commands) =>
        commands.flatMap((command): Command[] =>
          command.kind === "publish" ? [{ ...command, receipts: [] }, command] : [command],
        ),
    }),
    caughtAs: /^I5: .* is marked before/,
  },
  "a loser's part is published": { make: publishOthers, caughtAs: /^I5: .* has not won/ },
  "a source is left out of a grant": {
    make: () => ({ commands: (commands) => commands.map(withoutLastSource) }),
    caughtAs: /^I4: the sources/,
  },
  "sealed outputs are thrown away with the stream": {
    make: () => ({
      agent: (commands, event, worker) =>
        event.kind === "disconnected" ? [...commands, ...discardSealed(worker)] : commands,
    }),
    caughtAs: /^I8/,
  },
  "an heir that goes is still expected": {
    make: () => ({ agent: (commands) => commands.filter(({ kind }) => kind !== "unexpect") }),
    caughtAs: /^W5/,
  },
  "a script outlives its lease": {
    make: () => ({
      agent: (commands, event) =>
        event.kind === "tick" ? commands.filter(({ kind }) => kind !== "stop") : commands,
    }),
    caughtAs: /^W1/,
  },
  "a running job is swept": {
    make: () => ({
      commands: (commands, event, state) =>
        event.kind === "tick" ? [...commands, ...sweepRunning(state)] : commands,
    }),
    caughtAs: /^I8: .* is deleted, and needed/,
  },
  "nobody is told `settled`": {
    make: () => ({
      commands: (commands) =>
        commands.filter((one) => one.kind !== "send" || one.message.kind !== "settled"),
    }),
    caughtAs: /never comes to rest: .* still holds/,
  },
  "records of workers stay for ever": {
    make: () => ({
      commit: (writes) =>
        writes.filter(({ key, value }) => !key.startsWith("worker/") || value !== undefined),
    }),
    caughtAs: /never comes to rest: there is worker/,
  },
  "leftovers are not collected": {
    make: () => ({ commands: (commands) => commands.filter(({ kind }) => kind !== "collect") }),
    caughtAs: /never comes to rest: there is the object/,
  },
};

/** Of two parts with one name, the other. */
function publishOthers(): Mutation {
  const made = new Map<string, Receipt[]>();
  return {
    event: (event) => {
      if (event.kind !== "worker-message" || event.message.kind !== "completed") return event;
      const { output } = event.message;
      if (output.kind !== "part") return event;
      const { name } = output.receipt;
      made.set(name, [...(made.get(name) ?? []), output.receipt]);
      return event;
    },
    commands: (commands) =>
      commands.map((command) => {
        if (command.kind !== "publish") return command;
        const receipts = command.receipts.map(
          (receipt) =>
            made.get(receipt.name)?.find(({ token }) => token !== receipt.token) ?? receipt,
        );
        return { ...command, receipts };
      }),
  };
}

function withoutLastSource(command: Command): Command {
  if (command.kind !== "send" || command.message.kind !== "grant") return command;
  const { assignment } = command.message;
  const { input } = assignment;
  if (input.kind !== "reduce") return command;
  const fewer = { ...input, sources: input.sources.slice(0, -1) };
  return { ...command, message: { kind: "grant", assignment: { ...assignment, input: fewer } } };
}

function discardSealed({ agent }: WorkerModel): AgentCommand[] {
  return [...agent.held].flatMap(([attempt, held]) =>
    held.kind === "sealed" ? { ...held, kind: "discard", attempt } : [],
  );
}

function sweepRunning(state: State): Command[] {
  return [...state.jobs.values()].flatMap((job) => {
    const what: SweepScope = { objects: "all", logs: false };
    const isRunning = job.stage.kind === "reduce";
    return isRunning ? { kind: "sweep", job: job.record, what } : [];
  });
}
