import { combinerOf } from "../model/builtins.ts";
import { programOf } from "../model/command.ts";
import { MORE_FAULTS, MrError, type Violation } from "../model/errors.ts";
import { inputOf } from "../model/input_pattern.ts";
import type { JobSpec, StepSpec } from "../model/job_request.ts";
import { LIMIT } from "../model/limits.ts";
import { CONTAINER, folderPrefix, locationOf } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";
import { fileOf, isBlob } from "../model/request_fields.ts";
import { inLanes } from "./lanes.ts";
import { Turns } from "./turns.ts";

type Refusal = Violation | undefined;
type Check = () => Promise<Refusal>;

/**
 * What only storage can tell of a request, looked up before the job is accepted.
 * @returns the ETags of its scripts and files, by name: the versions the job will run.
 * @throws MrError `invalid` with every field that names something missing.
 */
export async function checkAgainstStorage(
  store: ObjectStore,
  spec: JobSpec,
): Promise<Record<string, string>> {
  const etags: Record<string, string> = {};
  const checkBlob = async (field: string, name: string, orProgram: boolean): Promise<Refusal> => {
    // Steps name the same ones.
    if (Object.hasOwn(etags, name)) return undefined;
    const info = await store.head(CONTAINER.scripts, name);
    if (info === undefined && orProgram && /^[\w-]+$/.test(name)) return undefined;
    const message = `there is no ${name} in container ${CONTAINER.scripts}; upload it first`;
    if (info === undefined) return { field, message };
    etags[name] = info.etag;
    return undefined;
  };
  /** A bare word that is no blob is a program of the workers: `cat`. */
  const checkCommand = async (field: string, command: string): Promise<Refusal> => {
    const program = programOf(command);
    return isBlob(program) ? checkBlob(field, program, true) : undefined;
  };
  const checkStep = (step: StepSpec, path: string, phase: JobSpec["phase"]): Check[] => [
    () => checkCommand(`${path}mapper`, step.mapper),
    ...(phase !== "map" && step.r_num > 0
      ? [() => checkCommand(`${path}reducer`, step.reducer)]
      : []),
    ...(step.r_num > 0
      ? [() => checkCommand(`${path}combiner`, combinerOf(step.combiner, step.reducer))]
      : []),
    ...step.files.map((file, i) => () => checkBlob(`${path}files.${i}`, fileOf(file).name, false)),
  ];
  const checks: Check[] = [
    ...(spec.steps.length === 0 ? checkStep(spec, "", spec.phase) : []),
    ...spec.steps.flatMap((step, i) => checkStep(step, `steps.${i}.`, "")),
    ...(spec.phase === "reduce"
      ? []
      : [...new Set(spec.data)].map((text) => {
          const field = spec.data.length > 1 ? `data.${spec.data.indexOf(text)}` : "data";
          return () => checkData(store, text, field);
        })),
    ...(spec.output === "" ? [] : [() => checkOutput(store, spec.output)]),
  ];
  const found: Refusal[] = new Array(checks.length);
  let faults = 0;
  await inLanes([...checks.entries()], async ([index, check]) => {
    if (faults >= LIMIT.violations) return;
    found[index] = await check();
    if (found[index] !== undefined) faults += 1;
  });
  const violations = found.filter((refusal) => refusal !== undefined);
  if (violations.length >= LIMIT.violations)
    violations.splice(LIMIT.violations, Infinity, { field: "", message: MORE_FAULTS });
  if (violations.length > 0)
    throw new MrError("invalid", "the request names what is not there", { violations });
  return etags;
}

async function checkData(store: ObjectStore, text: string, field: string): Promise<Refusal> {
  const { container, prefix, matches } = inputOf(text);
  if (!(await store.containerExists(container)))
    return { field, message: `there is no container ${container}` };
  // An empty container is an input like any other; a prefix or pattern that matches nothing is a slip.
  if (text === container) return undefined;
  const turns = new Turns();
  for await (const { name } of store.list(container, prefix)) {
    await turns.next();
    if (matches(name)) return undefined;
  }
  const rest = text.slice(container.length + 1);
  const what = rest === prefix ? `begins with ${prefix}` : `matches ${rest}`;
  return { field, message: `nothing in container ${container} ${what}` };
}

async function checkOutput(store: ObjectStore, output: string): Promise<Refusal> {
  const { container, prefix } = locationOf(output);
  if (!(await store.containerExists(container))) return undefined;
  for await (const _ of store.list(container, folderPrefix(prefix)))
    return { field: "output", message: `${output} is not empty; results never overwrite anything` };
  return undefined;
}
